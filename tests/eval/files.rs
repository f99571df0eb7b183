//! Reading and writing of qrels and runs, and the messages about bad files.

use super::{assert_usage_error, golden, qrels};
use proptest::prelude::*;
use std::collections::HashSet;
use std::fs;
use warpseek::error::{Error, Result};
use warpseek::eval::qrels::{DocumentLevels, Qrels};
use warpseek::eval::run::{Run, rank_documents};
use warpseek::eval::trec::RunWriter;

fn run(text: &str) -> Result<Run> {
    Run::from_reader(text.as_bytes(), "ran")
}

/// The error must be about the input, and its message exactly this.
fn assert_input_error<T: std::fmt::Debug>(result: Result<T>, message: &str) {
    let error = result.expect_err(message);
    assert!(matches!(error, Error::Input { .. }), "{error:?}");
    assert_eq!(error.to_string(), message);
}

fn ids<'a>(run: &'a Run, query: &str) -> Vec<&'a str> {
    run.get(query).unwrap().iter().map(|(document, _)| document.as_str()).collect()
}

#[test]
fn qrels_in_both_formats_read_the_same_in_order_of_appearance() {
    fn pairs(levels: &DocumentLevels) -> Vec<(&str, i32)> {
        levels.iter().map(|(document, level)| (document.as_str(), *level)).collect()
    }

    let beir = "\u{feff}query-id\tcorpus-id\tscore\r\nq2\td 1\t2\r\n\r\nq1\té\t-1\r\nq2\ta\t0\r\n";
    let plain = beir.split_once('\n').unwrap().1;
    for text in [beir, plain] {
        let judged = qrels(text).unwrap();
        let order: Vec<_> = judged.iter().map(|(query, levels)| (query, pairs(levels))).collect();
        assert_eq!(order, [("q2", vec![("d 1", 2), ("a", 0)]), ("q1", vec![("é", -1)])]);
    }
    let trec = qrels("q2 0 d1 2\nq1\tQ0  d1\t1 \n  q2 0 a 0\nq2 0 d1 2\n").unwrap();
    assert_eq!(pairs(trec.get("q2").unwrap()), [("d1", 2), ("a", 0)]);
    assert_eq!(pairs(trec.get("q1").unwrap()), [("d1", 1)]);
    assert!(trec.get("q3").is_none());
}

#[test]
fn qrels_levels_with_zeros_behind_the_point_are_integers() {
    let text = "query-id\tcorpus-id\tscore\nq\ta\t1.0\nq\tb\t2.00\nq\tc\t-1.0\nq\td\t0.0\n";
    let judged = qrels(text).unwrap();
    let levels: Vec<i32> = judged.get("q").unwrap().values().copied().collect();
    assert_eq!(levels, [1, 2, -1, 0]);
    for level in ["1.5", "1.", ".0", "1.0.0", "1e0", "1.0x", "3000000000.0", "nan"] {
        let message = format!(
            "judged, line 1, field 'level': invalid relevance level '{level}': write an integer"
        );
        assert_input_error(qrels(&format!("q 0 d {level}\n")), &message);
    }
}

#[test]
fn qrels_with_a_bad_line_name_file_line_and_field() {
    for (text, message) in [
        (
            "q\td\t1\nq\td2\n",
            "judged, line 2: expected 3 tab-separated columns (query-id, corpus-id, score) as on \
             the first line, found 2",
        ),
        (
            "q 0 d 1\n\nq 0 d 1 x\n",
            "judged, line 3: expected 4 columns (query, iteration, document, level) as on the \
             first line, found 5",
        ),
        (
            "q d 1\n",
            "judged, line 1: not a file of relevance judgments: expected 3 tab-separated columns \
             (query-id, corpus-id, score) or 4 columns (query, iteration, document, level), found \
             1 by tab and 3 by white space",
        ),
        (
            "q\td\t0.5\n",
            "judged, line 1, field 'score': invalid relevance level '0.5': write an integer",
        ),
        (
            "q 0 d 1\nq 0 e 3000000000\n",
            "judged, line 2, field 'level': invalid relevance level '3000000000': write an integer",
        ),
        ("q\t\t1\n", "judged, line 1, field 'corpus-id': the id is empty"),
        (
            "q 0 d 1\nq 0 e 1\nq 0 d 2\n",
            "judged, line 3: document 'd' of query 'q' has level 2 here and level 1 before: keep \
             one of them",
        ),
        ("", "judged: the file holds no relevance judgment"),
        ("query-id\tcorpus-id\tscore\n\n", "judged: the file holds no relevance judgment"),
    ] {
        assert_input_error(qrels(text), message);
    }
    assert_usage_error(qrels("q 0 d 1\n").unwrap().insert("q", "d", 2), "level 1 before");
}

#[test]
fn qrels_of_damaged_bytes_are_refused_with_their_line() {
    let read = |bytes: &[u8]| Qrels::from_reader(bytes, "judged");
    assert_input_error(
        read(b"q 0 d 1\nq 0 \xff 1\n"),
        "judged, line 2: not valid UTF-8: convert the file to UTF-8",
    );
    let long = format!("q 0 {} 1\n", "x".repeat(70_000));
    assert_input_error(
        read(long.as_bytes()),
        "judged, line 1: the line is longer than 65536 bytes",
    );
    let longest = format!("q 0 {} 1\r\n", "x".repeat(65_536 - 6));
    assert_eq!(read(longest.as_bytes()).unwrap().len(), 1);
    let zipped = fs::read(golden("binary.tsv.gz")).unwrap();
    let cut = read(&zipped[..zipped.len() / 2]).unwrap_err();
    assert!(cut.to_string().contains("the gzip stream is damaged or cut short"), "{cut}");
    assert_eq!(cut.exit_code(), 7);
    let absent = Qrels::read(golden("absent.tsv")).unwrap_err();
    assert!(matches!(absent, Error::Io { .. }), "{absent:?}");
}

#[test]
fn run_in_trec_format_is_ordered_by_32_bit_score_then_id_descending() {
    let text = "q2 Q0 a 1 -1e-3 t\nq1 Q0 c 9 0.5 t\nq2 Q0 b 1 3 t\nq1 Q0 b 1 0.7 t\n\
                q1 Q0 d 1 0.5000000001 t\nq1 Q0 e 1 0.5 t\n";
    let answers = run(text).unwrap();
    assert_eq!(answers.iter().map(|(query, _)| query).collect::<Vec<_>>(), ["q2", "q1"]);
    assert_eq!(ids(&answers, "q2"), ["b", "a"]);
    assert_eq!(ids(&answers, "q1"), ["b", "e", "d", "c"]);
    assert_eq!(answers.get("q1").unwrap()[0].1, 0.7);
}

#[test]
fn run_in_three_columns_is_ranks_unless_its_header_says_scores() {
    let ranks = run("q\ta b\t2\nq\tc\t1\n").unwrap();
    assert_eq!(ids(&ranks, "q"), ["c", "a b"]);
    assert_eq!(ranks.get("q").unwrap()[0].1, -1.0);
    let headed = run("query\tdocument\trank\nq\ta\t2\nq\tc\t1\n").unwrap();
    assert_eq!(ids(&headed, "q"), ["c", "a"]);
    let scores = run("query-id\tcorpus-id\tscore\nq\ta\t2\nq\tc\t1\nq\td\t1\n").unwrap();
    assert_eq!(ids(&scores, "q"), ["a", "d", "c"]);
}

#[test]
fn run_with_a_bad_line_names_file_line_and_field() {
    let cure = "for scores begin the file with the line 'query-id<tab>corpus-id<tab>score'";
    for (text, message) in [
        (
            "q Q0 d 1 0.5 t\nq Q0 d 1 0.5\n",
            "ran, line 2: expected 6 columns (query, Q0, document, rank, score, tag) as on the \
             first line, found 5"
                .to_owned(),
        ),
        (
            "q Q0 d 1 NaN t\n",
            "ran, line 1, field 'score': invalid score 'NaN': write a finite decimal number".into(),
        ),
        (
            "q Q0 d 1 inf t\n",
            "ran, line 1, field 'score': invalid score 'inf': write a finite decimal number".into(),
        ),
        (
            "q\td\t0.5\n",
            format!(
                "ran, line 1, field 'rank': invalid rank '0.5': write an integer from 1 to \
                 16777216; {cure}"
            ),
        ),
        ("q\td\t3\nq\te\t3\n", format!("ran: rank 3 occurs twice for query 'q': {cure}")),
        (
            "q d\n",
            "ran, line 1: not a file of ranked documents: expected 3 tab-separated columns (query, \
             document, score) or 3 tab-separated columns (query, document, rank) or 6 columns \
             (query, Q0, document, rank, score, tag), found 1 by tab and 2 by white space"
                .into(),
        ),
        ("\n", "ran: the file holds no ranked document".into()),
    ] {
        assert_input_error(run(text), &message);
    }
    let mut answers = run("q Q0 d 1 1 t\n").unwrap();
    assert_usage_error(answers.insert("q", vec![]), "query 'q' is in the run twice");
}

#[test]
fn rank_documents_gives_each_document_its_best_row() {
    let rows = [("b", 0.9), ("a", 0.8), ("b", 0.7), ("c", 0.6), ("a", 0.85)];
    let ranking = [("b", 0.9), ("a", 0.85), ("c", 0.6)].map(|(id, score)| (id.to_owned(), score));
    assert_eq!(rank_documents(rows), ranking);
}

fn written(query: &str, ranking: &[(String, f64)]) -> Result<String> {
    let mut writer = RunWriter::new(Vec::new(), "out.trec", "tag")?;
    writer.write_query(query, ranking)?;
    Ok(String::from_utf8(writer.finish()?).unwrap())
}

#[test]
fn run_writer_nudges_ties_and_drops_a_document_written_before() {
    let ranking = [("b", 0.5), ("z", 0.5), ("b", 0.5), ("a", 0.75), ("c", 0.25)];
    let ranking = ranking.map(|(id, score)| (id.to_owned(), score));
    assert_eq!(
        written("q", &ranking).unwrap(),
        "q Q0 b 1 0.5 tag\nq Q0 z 2 0.49999997 tag\nq Q0 a 3 0.49999994 tag\nq Q0 c 4 0.25 tag\n"
    );
}

/// `0x15ae43fd` is the one 32-bit float whose shortest digits a reader that goes through a 64-bit
/// float, as C's `atof` does, takes for its neighbour.
#[test]
fn run_writer_of_the_float_that_double_rounding_moves_writes_more_digits() {
    let score = f32::from_bits(0x15ae_43fd);
    assert_ne!(format!("{score:?}").parse::<f64>().unwrap() as f32, score);
    let text = written("q", &[("d".to_owned(), f64::from(score))]).unwrap();
    let digits = text.split(' ').nth(4).unwrap();
    assert_eq!(digits.parse::<f64>().unwrap() as f32, score);
    assert_eq!(digits.parse::<f32>().unwrap(), score);
}

#[test]
fn run_writer_of_what_the_format_cannot_hold_names_it_and_writes_nothing() {
    let cure = "which a TREC run cannot hold: change the id or choose another output format";
    let mut writer = RunWriter::new(Vec::new(), "out.trec", "tag").unwrap();
    for (query, document, score, message) in [
        (
            "q",
            "a b",
            1.0,
            format!("document id 'a b' has white space or a control character, {cure}"),
        ),
        ("q", "", 1.0, format!("document id '' is empty, {cure}")),
        (
            "q\t1",
            "a",
            1.0,
            format!("query id 'q\\t1' has white space or a control character, {cure}"),
        ),
        ("q", "a", f64::NAN, "the score NaN of document 'a' is not a finite 32-bit float".into()),
        (
            "q",
            "a",
            -1e39,
            format!("the score {} of document 'a' is not a finite 32-bit float", -1e39),
        ),
    ] {
        let result = writer.write_query(query, &[("fine", 2.0), (document, score)]);
        let query = query.escape_debug();
        assert_input_error(result, &format!("out.trec, query '{query}': {message}"));
    }
    assert!(writer.finish().unwrap().is_empty());
    assert_usage_error(RunWriter::new(Vec::new(), "out.trec", "my run"), "run tag 'my run'");
}

/// Scores with many ties and near-ties, around 0, subnormal, large, and in no particular order.
fn scores() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(vec![0.0, -0.0, 0.5, 1.0, -1.0, 1e-45, -1e-45, 1.2e-38, 3e38, -3e38]),
        (0..4u32, 0..6u32).prop_map(|(a, b)| f64::from(a) / 3.0 + f64::from(b) * 1e-9),
        -1.0..1.0,
        any::<f32>().prop_filter("finite", |x| x.abs() < 3.3e38).prop_map(f64::from),
    ]
}

proptest! {
    #[test]
    fn run_writer_of_any_ranking_keeps_its_order_under_trec_sorting(
        scores in prop::collection::vec(scores(), 1..80),
        sorted in any::<bool>(),
        salt in any::<u64>(),
    ) {
        let mut scores = scores;
        if sorted {
            scores.sort_by(|left, right| right.total_cmp(left));
        }
        let ranking: Vec<(String, f64)> = (1u64..)
            .zip(&scores)
            .map(|(i, &score)| (format!("d{:x}", salt.wrapping_mul(2 * i + 1)), score))
            .collect();
        let order: Vec<&str> = ranking.iter().map(|(id, _)| id.as_str()).collect();
        prop_assume!(order.iter().collect::<HashSet<_>>().len() == order.len());
        let text = written("q", &ranking).unwrap();

        let mut rows: Vec<(&str, f32)> = Vec::new();
        for (line, (id, score)) in text.lines().zip(&ranking) {
            let columns: Vec<&str> = line.split(' ').collect();
            let direct: f32 = columns[4].parse().unwrap();
            let double: f64 = columns[4].parse().unwrap();
            prop_assert_eq!(columns[2], id);
            prop_assert_eq!(direct.to_bits(), (double as f32).to_bits());
            let room = rows.last().is_none_or(|&(_, last)| (*score as f32) < last);
            let wanted = if room { *score as f32 } else { rows.last().unwrap().1.next_down() };
            prop_assert_eq!(direct, wanted);
            rows.push((columns[2], direct));
        }
        prop_assert_eq!(rows.len(), ranking.len());
        rows.sort_by(|left, right| right.1.total_cmp(&left.1).then(right.0.cmp(left.0)));
        prop_assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), order.clone());
        let reread = run(&text).unwrap();
        prop_assert_eq!(ids(&reread, "q"), order);
    }
}
