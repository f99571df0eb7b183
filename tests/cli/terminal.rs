//! Hits on the terminal: order, scores, marks; the minimum score and the rerank budget.

use super::{hits, number};
use crate::support::cli::{
    Workplace, assert_holds, finish, ids, indexed, search, small_reranker, with_real_model, words,
};
use serde_json::{Value, json};

/// The scores in front of the hits of a text output, with the titles.
fn printed(out: &str) -> Vec<(String, String)> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        words.next()?.parse::<usize>().ok()?;
        let score = words.next().filter(|w| *w == "-" || w.parse::<f64>().is_ok())?.to_owned();
        Some((score, words.collect::<Vec<_>>().join(" ")))
    };
    out.lines().filter(|line| !line.starts_with("    ")).filter_map(parse).collect()
}

#[test]
fn printed_score_is_the_one_that_orders_the_hits() {
    let place = indexed(60);
    let reranker = small_reranker();
    for (more, word) in [
        ("--no-rerank", "cosine"),
        ("--no-rerank --hybrid", "cosine and BM25"),
        ("--no-rerank --hybrid --fusion rrf", "reciprocal ranks"),
        ("--rerank-depth 12", "rerank score"),
        ("--rerank-depth 12 --retriever-weight 0.3", "retrieval and rerank score"),
    ] {
        let more: Vec<&str> = words(more).into_iter().chain(["-k", "15"]).collect();
        let more = [&more[..], &["--reranker", &reranker]].concat();
        let json = search(&place, "storm bread clock", &more);
        let args = [&["search", "idx", "storm bread clock"][..], &more].concat();
        let text = place.run(&args).ok();
        assert_holds(&text.stderr, &[&format!("among 60 rows, by {word}, in")]);
        let expected: Vec<(String, String)> = hits(&json)
            .iter()
            .map(|hit| {
                let score = &hit["final_score"];
                let score = score.as_f64().map_or("-".to_owned(), |score| format!("{score:.4}"));
                (score, hit["title"].as_str().unwrap().to_owned())
            })
            .collect();
        assert_eq!(printed(&text.stdout), expected, "{word}");
        let scores = hits(&json).iter().map_while(|hit| hit["final_score"].as_f64());
        assert!(scores.collect::<Vec<_>>().is_sorted_by(|a, b| a >= b), "{word}");
        let deeper = expected.iter().filter(|(score, _)| score == "-").count();
        assert_eq!(deeper, if word.contains("rerank") { 3 } else { 0 });
        assert_eq!(text.stdout.matches("not reranked, in retrieval order").count(), deeper.min(1));
        assert!(!text.stdout.contains("logit"));
        let explained = place.run(&[&args[..], &["--explain"]].concat()).ok();
        assert_holds(&explained.stdout, &["id d", "retrieved #1"]);
        assert_eq!(explained.stdout.contains("(logit "), deeper > 0);
        assert_holds(&explained.stderr, &[&format!("ordered by {word}")]);
    }
}

#[test]
fn hybrid_hits_show_the_cosine_and_bm25_of_which_their_score_is_made() {
    let place = indexed(60);
    let plain = search(&place, "storm bread clock", &["--no-rerank", "-k", "60"]);
    assert!(hits(&plain)[0].get("dense_score").is_none());
    assert!(hits(&plain)[0].get("bm25_score").is_none());
    for more in ["--no-rerank -k 60 --hybrid", "--no-rerank -k 60 --hybrid --fusion rrf"] {
        let more = words(more);
        let found = search(&place, "storm bread clock", &more);
        let args = [&["search", "idx", "storm bread clock", "--explain"][..], &more].concat();
        let text = place.run(&args).ok().stdout;
        let parts = |name: &str| hits(&found).iter().map(|hit| number(&hit[name])).collect();
        let (dense, bm25): (Vec<f64>, Vec<f64>) = (parts("dense_score"), parts("bm25_score"));
        for (hit, (dense, bm25)) in hits(&found).iter().zip(dense.iter().zip(&bm25)) {
            let alone = hits(&plain).iter().find(|other| other["id"] == hit["id"]).unwrap();
            assert_eq!(hit["dense_score"], alone["score"]);
            assert_holds(&text, &[&format!("  cosine {dense:.4}  BM25 {bm25:.4}  ")]);
        }
        assert!(bm25.iter().any(|&score| score > 0.0) && bm25.iter().all(|&score| score >= 0.0));
        if more.contains(&"rrf") {
            continue;
        }
        // All rows are candidates, over which the weighted sum scales both parts.
        let scaled = |values: &[f64], value: f64| {
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (value - least) / (most - least)
        };
        for (hit, (d, b)) in hits(&found).iter().zip(dense.iter().zip(&bm25)) {
            let sum = 0.7 * scaled(&dense, *d) + 0.3 * scaled(&bm25, *b);
            assert!((number(&hit["score"]) - sum).abs() < 1e-4, "{hit}: {sum}");
        }
    }
    place.file("q.txt", "storm bread clock\n");
    place.call("batch idx q.txt --out out.jsonl --hybrid").ok();
    let alone = search(&place, "storm bread clock", &["--no-rerank", "--hybrid"]);
    for (hit, same) in hits(&place.lines("out.jsonl")[0]).iter().zip(hits(&alone)) {
        assert_eq!((&hit["id"], &hit["bm25_score"]), (&same["id"], &same["bm25_score"]));
        assert!((number(&hit["dense_score"]) - number(&same["dense_score"])).abs() < 1e-5);
    }
}

#[test]
fn search_with_a_minimum_score_leaves_out_and_counts_what_is_below() {
    let place = indexed(60);
    let reranker = small_reranker();
    for (more, unread) in [
        ("-k 10 --no-rerank", 0),
        ("-k 10 --no-rerank --hybrid", 0),
        ("-k 10 --rerank-depth 20", 0),
        ("-k 10 --rerank-depth 20 --retriever-weight 0.5", 0),
        ("-k 10 --rerank-depth 8", 2),
    ] {
        let more = [&words(more)[..], &["--reranker", &reranker]].concat();
        let all = search(&place, "storm bread clock", &more);
        assert!(all.get("below_min_score").is_none());
        let least = number(&hits(&all)[4]["final_score"]);
        let n = hits(&all).iter().filter(|hit| hit["final_score"].as_f64() >= Some(least)).count();
        let least = least.to_string();
        let some =
            search(&place, "storm bread clock", &[&more[..], &["--min-score", &least]].concat());
        assert_eq!(ids(&some), ids(&all)[..n]);
        assert_eq!(some["below_min_score"], 10 - n - unread);
        assert_eq!(some.get("not_reranked"), (unread > 0).then(|| json!(unread)).as_ref());
        let args = ["search", "idx", "storm bread clock", "--min-score", &least];
        let told = place.run(&[&args[..], &more].concat()).ok().stderr;
        assert_holds(&told, &[&format!("{} hits below --min-score", 10 - n - unread)]);
        let left_out = format!("{unread} hits left out, which were not reranked");
        assert_eq!(told.contains(&left_out), unread > 0, "{told}");
    }
    let none = place.call("search idx river --min-score 2 --no-rerank");
    assert_eq!(none.code, 1, "{}", none.stderr);
    place.refuses(&[
        ("search idx a --min-score nan --no-rerank", 2, &["minimum score is not a number"]),
        ("search idx a --hybrid --fusion rrf --min-score 0 --no-rerank", 2, &["ranks"]),
        ("search idx a --min-score high", 2, &["--min-score"]),
    ]);
}

#[test]
fn batch_with_a_minimum_score_counts_what_is_below() {
    let place = indexed(40);
    place.file("q.txt", "river lamp\nstorm\n");
    let least = number(&hits(&search(&place, "storm", &["--no-rerank"]))[2]["final_score"]);
    let least = least.to_string();
    let args = ["batch", "idx", "q.txt", "--out", "out.jsonl", "--min-score", &least, "--json"];
    let report = place.run(&args).ok().json();
    let lines = place.lines("out.jsonl");
    let below = |line: &Value| line["below_min_score"].as_u64().unwrap();
    assert_eq!(report["below_min_score"], lines.iter().map(below).sum::<u64>());
    let storm = &lines[1];
    assert_eq!(hits(storm).len() as u64 + below(storm), 10);
    assert!(hits(storm).iter().all(|hit| number(&hit["score"]) >= least.parse().unwrap()));
    assert!(hits(storm).len() >= 3 && below(storm) > 0);
    let reranker = small_reranker();
    let line = "batch idx q.txt --out deep.jsonl --min-score 0 --rerank-depth 8 --json --reranker";
    let run = place.run(&[&words(line)[..], &[&reranker]].concat()).ok();
    assert_holds(&run.stderr, &["4 hits left out, which were not reranked"]);
    let report = run.json();
    assert_eq!((&report["below_min_score"], &report["not_reranked"]), (&json!(0), &json!(4)));
    assert_eq!(place.lines("deep.jsonl")[0]["not_reranked"], 2);
}

#[test]
fn rerank_budget_gives_the_result_of_the_depth_that_it_reached() {
    let place = indexed(80);
    let reranker = small_reranker();
    let with = |more: &str| {
        let more = [&words(more)[..], &["--reranker", &reranker, "-k", "20"]].concat();
        let mut result = search(&place, "storm bread clock", &more);
        result.as_object_mut().unwrap().remove("took_ms");
        result
    };
    let plain = with("--rerank-depth 50");
    assert!(plain.get("reranked_rows").is_none());
    for budget in ["0ms", "1ms", "3600s"] {
        let mut found = with(&format!("--rerank-depth 50 --rerank-budget {budget}"));
        let rows = found.as_object_mut().unwrap().remove("reranked_rows").unwrap();
        let rows = rows.as_u64().unwrap();
        match budget {
            "0ms" => assert_eq!(rows, 4),
            "3600s" => assert_eq!((rows, &found), (50, &plain)),
            _ => assert!((4..=50).contains(&rows)),
        }
        assert_eq!(found, with(&format!("--rerank-depth {rows}")), "{budget}");
    }
    let args = ["search", "idx", "storm", "--reranker", &reranker, "--rerank-budget", "0ms"];
    assert_holds(&place.run(&args).ok().stderr, &["reranked 4 rows of up to 50"]);
    place.refuses(&[
        ("search idx a --rerank-budget 300", 2, &["300ms or 1.5s"]),
        ("search idx a --rerank-budget=-1s", 2, &["300ms or 1.5s"]),
        ("search idx a --rerank-budget 1s --no-rerank", 2, &["--no-rerank"]),
    ]);
}

#[test]
fn colours_mark_the_words_of_the_query_when_they_are_wanted() {
    let place = indexed(20);
    let run = |color: &str, no_color: &str| {
        let line = format!("search idx 'the river' -k 3 --no-rerank --color {color}");
        let mut command = place.command(&words(&line));
        finish(command.env("NO_COLOR", no_color).env_remove("CLICOLOR_FORCE")).ok().stdout
    };
    assert_holds(&run("always", "1"), &["\x1b[1mriver\x1b[0m"]);
    for out in [run("auto", ""), run("auto", "1"), run("never", "")] {
        assert!(!out.contains('\x1b') && out.contains("river"), "{out}");
    }
    place.refuses(&[("info idx --color blue", 2, &["always"])]);
}

#[test]
fn markdown_is_shown_as_plain_text_with_its_line() {
    let place = Workplace::new();
    let text = "# Bread\n\nTake **strong** flour from [the mill](http://example.org/mill).\n\n\
                - *water*\n- `salt`\n";
    place.file("notes/bread.md", text);
    place.file("notes/plain.txt", "2 * 3 * 4 is **twenty four**\n");
    place.call("index notes -q").ok();
    let out = place.call("search 'flour of the mill' --no-rerank").ok().stdout;
    let shown = "Take strong flour from the mill. water salt";
    assert_holds(&out, &["notes/bread.md:1", shown, "2 * 3 * 4 is **twenty four**"]);
    assert!(!out.contains("example.org"), "{out}");
    // A whole passage stays as it is.
    let full = place.call("search 'flour of the mill' --no-rerank --full").ok().stdout;
    assert_holds(&full, &["**strong** flour"]);
}

/// The calibration holds for the built-in reranker over the real embedding model.
#[cfg(feature = "builtin-reranker")]
#[test]
fn hits_that_hardly_answer_are_low_and_said_to_be_so() {
    let place = Workplace::new();
    let corpus = include_str!("../../examples/demo/corpus.jsonl");
    place.file("corpus.jsonl", corpus);
    let run = |line: &str| {
        let mut command = place.command(&words(line));
        finish(with_real_model(&mut command).env("WARPSEEK_BUILTIN_MODELS", "1")).ok()
    };
    run("index corpus.jsonl -q");
    let on_topic = "search 'why do two threads that write neighbouring variables slow down?'";
    let text = run(on_topic);
    assert_holds(&text.stdout, &["nothing else is close"]);
    assert_holds(&text.stderr, &["by probability of relevance"]);
    let json = run(&format!("{on_topic} --json")).json();
    assert_eq!(json["ordered_by"], "probability");
    for hit in hits(&json) {
        let is_low = number(&hit["final_score"]) < 0.001;
        assert_eq!(hit.get("low").is_some(), is_low, "{hit}");
    }
    assert!(hits(&json)[0].get("low").is_none());
    let nothing = run("search 'how do I bake sourdough bread?'");
    assert_holds(&nothing.stdout, &["    nothing is close\n"]);
    // Scores of a row are the same however many rows are reranked.
    let few = run(&format!("{on_topic} --json --rerank-depth 3")).json();
    for hit in &hits(&few)[..3] {
        let same = hits(&json).iter().find(|other| other["id"] == hit["id"]).unwrap();
        assert_eq!(hit["final_score"], same["final_score"]);
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let place = Workplace::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.call(&format!("completions {shell}")).ok().stdout;
        assert_holds(&script, &["warpseek", "search", "rerank-budget", "color", "version"]);
        assert!(!script.contains("extract-text"), "{shell} offers a hidden command");
    }
    place.refuses(&[("completions tcsh", 2, &["bash"])]);
    let page = place.call("man").ok().stdout;
    assert_holds(&page, &[".TH warpseek", "warpseek\\-search(1)", "\\-\\-color", "Exit status"]);
    assert!(!page.contains("extract\\-text"), "{page}");
    place.call("man pages/man1").ok();
    for name in ["warpseek", "warpseek-search", "warpseek-models-pull"] {
        let page = std::fs::read_to_string(place.path(&format!("pages/man1/{name}.1"))).unwrap();
        assert_holds(&page, &[".TH "]);
    }
    assert!(!place.path("pages/man1/warpseek-extract-text.1").exists());
}
