//! Damaged files of an index: every answer is right, or refused.

use crate::support;
use half::f16;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use warpseek::error::{Place, Result};
use warpseek::store::filter::Filter;
use warpseek::store::{Index, IndexManifest, IndexWriter, Row};
use warpseek_ingest::Document;
use warpseek_ingest::chunk::{Chunk, Chunking};
use warpseek_topk::{QueryBatch, Scanner, ScoredRow};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const DIM: usize = 40;

/// Random numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 += 1;
        xxh3_64_with_seed(&self.0.to_le_bytes(), 25)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..DIM).map(|_| (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }
}

fn put(writer: &mut IndexWriter, random: &mut Random, number: usize, round: usize) {
    let words = ["river", "stone", "cloud", "bread", "lamp", "wolf", "paper", "salt"];
    let word = |random: &mut Random| words[random.below(words.len())];
    let text: Vec<&str> = (0..30).map(|_| word(random)).collect();
    let text = format!("{round} {}", text.join(" "));
    let mut document = Document::new(format!("d{number}"), text, Place::default());
    document.title = format!("{} {number}", word(random));
    document.metadata.insert("year".to_owned(), (1990 + number % 30).into());
    let chunk = Chunk { range: 0..document.text.len(), tokens: 8, tokens_lost: 0 };
    writer.put(document, vec![chunk], &random.vector()).unwrap();
}

/// An index after five commits, two of which replace and delete documents. Its write-ahead log
/// holds commits as long as the writer lives.
fn index() -> (TempDir, IndexWriter) {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(0);
    let manifest = IndexManifest::new(DIM, None, Chunking::default());
    let mut writer = IndexWriter::open_or_create(dir.path(), &manifest).unwrap();
    for (round, documents) in [0..120, 120..200, 60..90, 200..203, 203..204].into_iter().enumerate()
    {
        documents.for_each(|number| put(&mut writer, &mut random, number, round));
        if round == 3 {
            for name in ["d5", "d150"] {
                let found = writer.find_all(name).unwrap();
                found.into_iter().for_each(|seq| writer.delete(seq));
            }
        }
        writer.commit().unwrap();
    }
    (dir, writer)
}

fn copy_to(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Answers to a fixed set of questions.
#[derive(Debug, PartialEq)]
struct Answers {
    scans: Vec<Vec<ScoredRow>>,
    rows: Vec<Row>,
    lexical: Vec<(u32, u64)>,
    n_documents: u64,
}

fn answers(dir: &Path) -> Result<Answers> {
    let index = Index::open(dir)?;
    let mut random = Random(1_000);
    let queries: Vec<f32> = (0..20).flat_map(|_| random.vector()).collect();
    let (few, many) = (&queries[..DIM], &queries[..]);
    let filter = Filter::parse("year < 2005")?;
    let passing = index.rows_where(&filter)?;
    let mut scans = Vec::new();
    for (queries, mask) in
        [(few, index.live()), (many, index.live()), (few, &passing.mask), (many, &passing.mask)]
    {
        let batch = QueryBatch::new(queries, DIM)?;
        let masks = vec![Some(mask); batch.len()];
        scans.extend(Scanner::cpu().top_k_sharded(&index.matrix()?, &batch, 7, &masks)?);
    }
    let numbers: Vec<u32> = scans.iter().flatten().map(|hit| hit.row).take(60).collect();
    let rows = index.rows(&numbers)?;
    let lexical = index.lexical("river bread", 12, None)?;
    let lexical = lexical.iter().map(|hit| (hit.row, hit.score.to_bits())).collect();
    Ok(Answers { scans, rows, lexical, n_documents: index.n_documents()? })
}

/// Changes a file in one of several ways. Returns a description.
fn damage(path: &Path, random: &mut Random) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let at = random.below(bytes.len());
    let how = match random.below(8) {
        0..=3 if !bytes.is_empty() => {
            let bit = random.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at}")
        }
        4 | 5 if !bytes.is_empty() => {
            let end = (at + 1 + random.below(64)).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte = random.next() as u8);
            format!("bytes {at} to {end}")
        }
        6 if !bytes.is_empty() => {
            let end = (at + 4096).min(bytes.len());
            bytes[at..end].fill(0);
            format!("zeros from {at}")
        }
        _ => {
            bytes.truncate(at);
            format!("cut off at {at}")
        }
    };
    std::fs::write(path, bytes).unwrap();
    how
}

/// The files of an index, but for the shared memory of SQLite, which is made anew.
fn files_of(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with("-shm") && name != "lock");
    names.sort();
    names
}

/// Damages copies of an index, each once, and compares their answers. Returns per file the numbers
/// of right and of refused ones, and a list of those that are wrong.
fn attack(original: &Path, per_file: usize) -> (BTreeMap<String, [usize; 2]>, Vec<String>) {
    let expected = answers(original).unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut random = Random(5_000);
    let (mut table, mut wrong) = (BTreeMap::new(), Vec::new());
    for name in files_of(original) {
        let counts: &mut [usize; 2] = table.entry(name.clone()).or_default();
        // Every page holds something else.
        let tries = if name == "documents.db" { 5 * per_file } else { per_file };
        for round in 0..tries {
            let dir: PathBuf = place.path().join(format!("{name}-{round}"));
            copy_to(original, &dir);
            let path = dir.join(&name);
            let how = if round == 0 {
                std::fs::remove_file(&path).unwrap();
                "removed".to_owned()
            } else {
                damage(&path, &mut random)
            };
            match catch_unwind(AssertUnwindSafe(|| answers(&dir))) {
                Err(_) => wrong.push(format!("{name}, {how}: panic")),
                Ok(Ok(got)) if got == expected => counts[0] += 1,
                Ok(Ok(_)) => wrong.push(format!("{name}, {how}: other answers")),
                Ok(Err(error)) => {
                    counts[1] += 1;
                    assert!(!error.to_string().contains("internal"), "{name}, {how}: {error}");
                }
            }
            std::fs::remove_dir_all(&dir).unwrap();
        }
    }
    (table, wrong)
}

#[test]
fn damaged_vectors_and_logs_never_give_a_wrong_answer() {
    let (dir, writer) = index();
    let place = tempfile::tempdir().unwrap();
    let with_log = place.path().join("with-log");
    copy_to(dir.path(), &with_log);
    drop(writer);
    for (original, per_file) in [(with_log.as_path(), 60), (dir.path(), 60)] {
        let (table, wrong) = attack(original, per_file);
        eprintln!("[right, refused]: {table:#?}\nwrong: {wrong:#?}");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn rows_are_compared_once_and_again_after_a_damage_only_where_unknown() {
    let (dir, mut writer) = index();
    let index = Index::open(dir.path()).unwrap();
    let batch = |row: usize| {
        let values = index.matrix().unwrap().row(row).unwrap();
        let query: Vec<f32> = values[..DIM].iter().map(|v| v.to_f32()).collect();
        QueryBatch::new(&query, DIM).unwrap()
    };
    let top = |index: &Index, batch: &QueryBatch| {
        let found = Scanner::cpu().top_k_sharded(&index.matrix().unwrap(), batch, 1, &[None]);
        found.map(|found| found[0][0].row)
    };
    let (known, unknown) = (batch(7), batch(90));
    assert_eq!(top(&index, &known).unwrap(), 7);
    // Row 90 is damaged on the disk; row 7 is not.
    let path = dir.path().join("vectors-0.f16");
    let stride = warpseek_topk::stride_of(DIM);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 + 90 * stride * size_of::<f16>()] ^= 1;
    // In place: the file stays mapped.
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut &file, &bytes).unwrap();
    let mut random = Random(9_000);
    put(&mut writer, &mut random, 900, 9);
    writer.commit().unwrap();
    let reopened = index.reopen().unwrap();
    assert_eq!(reopened.n_rows(), index.n_rows() + 1);
    for index in [&index, &reopened] {
        assert_eq!(top(index, &known).unwrap(), 7);
        let error = top(index, &unknown).unwrap_err();
        assert_eq!(error.exit_code(), 5);
        let message = error.to_string();
        assert!(message.contains("vectors-0.f16: row 90 is damaged"), "{message}");
        assert!(message.contains("restore it from a backup"), "{message}");
    }
    // Compaction refuses too, and changes nothing.
    assert_eq!(writer.compact().unwrap_err().exit_code(), 5);
}

#[test]
fn compaction_makes_damaged_derived_files_anew() {
    let (dir, writer) = index();
    let expected = answers(dir.path()).unwrap();
    drop(writer);
    IndexWriter::open(dir.path()).unwrap().compact().unwrap();
    for (generation, (name, at)) in
        [("i8", 4096 + 999), ("scale", 4096 + 100), ("sum", 4096 + 40), ("sum", 3)]
            .into_iter()
            .enumerate()
    {
        let generation = generation + 1;
        let path = dir.path().join(format!("vectors-{generation}.{name}"));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        let scores = |answers: Answers| -> Vec<u32> {
            answers.scans.iter().flatten().map(|hit| hit.score.to_bits()).collect()
        };
        let found = scores(answers(dir.path()).unwrap());
        assert_eq!(found, scores(answers(dir.path()).unwrap()));
        let problems = |dir: &Path| -> Vec<String> {
            let findings = warpseek::store::verify(dir).unwrap();
            findings.into_iter().filter_map(|finding| finding.problem).collect()
        };
        let problem = problems(dir.path()).concat();
        assert!(problem.contains("`warpseek compact` makes"), "{problem}");
        let compaction = IndexWriter::open(dir.path()).unwrap().compact().unwrap();
        assert_eq!(compaction.generation, generation as u64 + 1);
        assert_eq!(problems(dir.path()), [""; 0]);
    }
    let again = answers(dir.path()).unwrap();
    assert_eq!(again.n_documents, expected.n_documents);
    let texts = |answers: &Answers| -> Vec<String> {
        answers.rows.iter().map(|row| row.text.clone()).collect()
    };
    assert_eq!(texts(&again), texts(&expected));
}

#[test]
fn compaction_of_damaged_chunks_is_refused_and_changes_nothing() {
    let (dir, writer) = index();
    drop(writer);
    let conn = support::database(dir.path());
    conn.execute("UPDATE chunk SET start_byte = 1 WHERE row = 7", []).unwrap();
    drop(conn);
    let error = IndexWriter::open(dir.path()).unwrap().compact().unwrap_err();
    let message = error.to_string();
    assert_eq!(error.exit_code(), 5, "{message}");
    assert!(message.contains("documents.db: the chunks of rows 0 to 119 are damaged"), "{message}");
    assert_eq!(Index::open(dir.path()).unwrap().stats().unwrap().generation, 0);
}
