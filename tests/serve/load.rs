//! Too much work, and requests that ask for too much: memory stays bounded, what cannot be done in
//! time is refused at once, and other clients notice little.

use crate::cli::indexed;
use crate::support::cli::{Workplace, small_reranker};
use crate::support::server::{JSON, Server, exchange};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// English-like text of so many bytes.
fn text(bytes: usize) -> String {
    let words = ["river", "lamp", "garden", "cloud", "stone", "bread"];
    let mut text = String::with_capacity(bytes + 8);
    let mut i = 0usize;
    while text.len() < bytes {
        text.push_str(words[i.wrapping_mul(2_654_435_761) / 7 % words.len()]);
        text.push(' ');
        i += 1;
    }
    text
}

/// Sets a flag at the end of a scope, also if the scope panics.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The greatest resident memory in KiB while `work` runs.
#[cfg(target_os = "linux")]
fn peak_memory<T>(server: &Server, work: impl FnOnce() -> T) -> (u64, T) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !stop.load(Ordering::Relaxed) {
                most = most.max(server.memory());
                std::thread::sleep(Duration::from_millis(5));
            }
            most
        });
        let stopped = Stop(&stop);
        let result = work();
        drop(stopped);
        (watch.join().unwrap(), result)
    })
}

#[cfg(target_os = "linux")]
#[test]
fn abandoned_and_very_long_texts_take_little_memory_and_end_soon() {
    let place = indexed(3);
    let server = Server::start(&place, &["idx", "--reranker", &small_reranker()]);
    let body = json!({"input": text(3_800_000)});
    let (most, ()) = peak_memory(&server, || {
        for _ in 0..40 {
            drop(server.begin_post("/v1/embeddings", &body));
        }
        // What the others left behind does not keep this one waiting.
        let started = Instant::now();
        server.post("/v1/embeddings", &json!({"input": "a"})).ok();
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    });
    assert!(most < 256 << 10, "{most} KiB");
    // Of a very long text what is truncated is counted; more tokens than a request may have are
    // refused before all are counted.
    let long = json!({"input": text(15_000_000)});
    let (most, ()) = peak_memory(&server, || {
        let reply = server.post("/v1/embeddings", &long).ok();
        let warning = reply["warnings"][0].as_str().unwrap();
        assert!(warning.contains("longer than 128 tokens"), "{warning}");
        let passages = json!({"query": "river", "texts": [text(15_000_000)]});
        server.post("/rerank", &passages).fails(422, &["more than 1000000 tokens"]);
        server.post("/tokenize", &json!({"inputs": text(6_000_000)})).fails(422, &["parts"]);
    });
    assert!(most < 256 << 10, "{most} KiB");
}

#[test]
fn replies_that_would_be_too_long_are_refused() {
    let place = indexed(500);
    let server = Server::start(&place, &["idx", "--max-reply-bytes", "200000"]);
    let info = server.get("/info").ok();
    assert_eq!(info["limits"]["max_reply_bytes"], 200_000);
    let search = |k: usize, vectors: bool| -> Value {
        let mut body = json!({"query": "river", "k": k, "rerank_depth": 0});
        body["with_vector"] = vectors.into();
        body
    };
    server.post("/v1/search", &search(10, true)).ok();
    let refused = ["longer than the 200000 bytes"];
    let batch = |n: usize, k: usize, vectors: bool| json!(vec![search(k, vectors); n]);
    server.post("/v1/search/batch", &batch(3, 10, true)).ok();
    server.post("/v1/search/batch", &batch(60, 100, true)).fails(400, &refused);
    server.post("/v1/search/batch", &batch(60, 100, false)).fails(400, &refused);
    server.post("/v1/search", &search(490, true)).fails(400, &refused);
    let texts = json!({"inputs": vec!["river lamp garden ".repeat(20); 30]});
    server.post("/embed", &texts).ok();
    server.post("/embed_all", &texts).fails(422, &["longer than", "each of their tokens"]);
    let many = json!({"input": vec!["a"; 1000]});
    server.post("/v1/embeddings", &many).fails(400, &refused);
}

/// An index whose documents have long lists, on which filters take long.
fn with_long_lists(n: usize) -> Workplace {
    let place = Workplace::new();
    let record = |i: usize| {
        let tags: Vec<String> = (0..200).map(|j| format!("tag {i} {j} {}", i * j)).collect();
        json!({"_id": format!("d{i}"), "text": format!("river {i}"), "tags": tags, "n": i})
            .to_string()
    };
    let lines: Vec<String> = (0..n).map(record).collect();
    place.file("corpus.jsonl", lines.join("\n"));
    place.run(&["index", "corpus.jsonl", "--into", "idx", "--quiet"]).ok();
    place
}

#[test]
fn filters_that_take_long_are_ended_and_keep_nobody_waiting() {
    let place = with_long_lists(3000);
    let server = Server::start(&place, &["idx", "--filter-timeout", "1"]);
    let conditions = |seed: usize| -> String {
        let condition = |i: usize| format!("tags CONTAINS 'no {seed} {i}'");
        (0..400).map(condition).collect::<Vec<_>>().join(" OR ")
    };
    let search =
        |filter: &str| json!({"query": "river", "k": 3, "rerank_depth": 0, "filter": filter});
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|seed| {
                let body = search(&conditions(seed));
                let server = &server;
                scope.spawn(move || (Instant::now(), server.post("/v1/search", &body)))
            })
            .collect();
        let innocent = scope.spawn(|| {
            let (mut slowest, mut n) = (Duration::ZERO, 0);
            while !stop.load(Ordering::Relaxed) {
                let started = Instant::now();
                let filter = if n % 2 == 0 { String::new() } else { format!("n < {n}") };
                server.post("/v1/search", &search(&filter)).ok();
                slowest = slowest.max(started.elapsed());
                n += 1;
            }
            (slowest, n)
        });
        let stopped = Stop(&stop);
        for asked in asked {
            let (_, reply) = asked.join().unwrap();
            reply.fails(400, &["the filter takes more than 1 s", "--filter-timeout"]);
        }
        drop(stopped);
        let (slowest, n) = innocent.join().unwrap();
        assert!(n > 20, "{n} searches");
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    });
    // A client that is gone does not keep the filter running.
    for seed in 100..110 {
        drop(server.begin_post("/v1/search", &search(&conditions(seed))));
    }
    let started = Instant::now();
    server.post("/v1/search", &search("tags CONTAINS 'tag 7 7 49'")).ok();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[test]
fn under_overload_most_of_the_work_is_done_in_time_and_the_rest_refused_at_once() {
    let place = Workplace::new();
    let record = |i: usize| json!({"_id": format!("d{i}"), "text": format!("{i} {}", text(600))});
    let lines: Vec<String> = (0..400).map(|i| record(i).to_string()).collect();
    place.file("corpus.jsonl", lines.join("\n"));
    place.run(&["index", "corpus.jsonl", "--into", "idx", "--quiet"]).ok();
    let args = ["idx", "--reranker", &small_reranker(), "--timeout", "1"];
    let server = Server::start(&place, &args);
    let search = json!({"query": "river lamp", "k": 5, "rerank_depth": 400});
    // The server learns how long its work takes.
    let alone = (0..8).map(|_| {
        let started = Instant::now();
        server.post("/v1/search", &search).ok();
        started.elapsed()
    });
    let alone = alone.min().unwrap();
    // Ten times as much as can be done in time, all at once.
    let n = ((10.0 / alone.as_secs_f64()) as usize).clamp(60, 1000);
    let replies: Vec<(Duration, u16)> = std::thread::scope(|scope| {
        let ask = || {
            let started = Instant::now();
            let status = server.post("/v1/search", &search).status;
            (started.elapsed(), status)
        };
        let all: Vec<_> = (0..n).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let count = |status: u16| replies.iter().filter(|reply| reply.1 == status).count();
    let (done, refused, late) = (count(200), count(429), count(504));
    eprintln!("{n} requests, {alone:?} alone: {done} done, {refused} refused, {late} late");
    assert_eq!(done + refused + late, n);
    // The machine runs other tests beside: `tests/soak` measures how many could be done.
    assert!(done > 0 && refused > done && late <= done, "{done} done, {refused} refused");
    server.post("/v1/search", &search).ok();
}

#[test]
fn write_ahead_log_stays_short_under_endless_changes_beside_searches() {
    let place = indexed(20);
    let server = Server::start(&place, &["idx"]);
    let log = || std::fs::metadata(place.path("idx/documents.db-wal")).map_or(0, |log| log.len());
    let stop = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let search = || {
            while !stop.load(Ordering::Relaxed) {
                server.post("/v1/search", &json!({"query": "river", "k": 5})).ok();
            }
        };
        let searching: Vec<_> = (0..2).map(|_| scope.spawn(search)).collect();
        let stopped = Stop(&stop);
        let mut most = 0;
        for n in 0..300 {
            let note = format!("{n} ").repeat(30_000);
            let document = json!({"id": format!("n{n}"), "text": "a short text", "note": note});
            server.post("/v1/documents", &json!({"documents": [document]})).ok();
            most = most.max(log());
        }
        drop(stopped);
        searching.into_iter().for_each(|thread| thread.join().unwrap());
        most
    });
    assert!(most < 16 << 20, "{most} bytes");
    // An idle server leaves no log at all.
    let started = Instant::now();
    while log() > 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "{} bytes are left", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(server.get("/info").ok()["indexes"][0]["documents"], 320);
    place.run(&["verify", "idx"]).ok();
}

#[test]
fn other_writers_get_their_turn_beside_endless_changes() {
    let place = indexed(20);
    let server = Server::start(&place, &["idx"]);
    let stop = AtomicBool::new(false);
    place.file("more.jsonl", "{\"_id\": \"x1\", \"text\": \"an axolotl\"}\n");
    std::thread::scope(|scope| {
        let change = |writer: usize| {
            let (server, stop) = (&server, &stop);
            move || {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    let document =
                        json!({"id": format!("w{writer}n{}", n % 40), "text": "a b", "n": n});
                    let body = json!({"documents": [document]}).to_string();
                    let mut stream = server.connect();
                    let path = "/v1/documents";
                    let sent = exchange(
                        &mut stream,
                        server.address(),
                        "POST",
                        path,
                        &JSON,
                        body.as_bytes(),
                    );
                    assert!(matches!(sent.unwrap().status, 200 | 503));
                    n += 1;
                }
                n
            }
        };
        let changing: Vec<_> = (0..3).map(|writer| scope.spawn(change(writer))).collect();
        let stopped = Stop(&stop);
        for round in 0..3 {
            place.run(&["index", "more.jsonl", "--into", "idx", "--quiet"]).ok();
            place.run(&["delete", "idx", &format!("d{round}")]).ok();
            place.run(&["compact", "idx"]).ok();
        }
        drop(stopped);
        assert!(changing.into_iter().all(|thread| thread.join().unwrap() > 3));
    });
    place.run(&["verify", "idx", "--sample", "3"]).ok();
}

#[test]
fn server_compacts_an_index_of_which_half_is_deleted() {
    let place = indexed(20);
    let server = Server::start(&place, &["idx"]);
    let dead = || -> Value {
        place.run(&["info", "idx", "--json"]).ok().json()["stats"]["dead_rows"].clone()
    };
    for round in 0..3 {
        let document = |n: usize| json!({"id": format!("u{n}"), "text": format!("okapi {round}")});
        let all: Vec<Value> = (0..600).map(document).collect();
        server.post("/v1/documents", &json!({"documents": all})).ok();
    }
    let started = Instant::now();
    while dead() != 0 {
        assert!(started.elapsed() < Duration::from_secs(20), "{} rows are deleted", dead());
        std::thread::sleep(Duration::from_millis(50));
    }
    let found = server.post("/v1/search", &json!({"query": "okapi", "k": 700})).ok();
    let hits = found["hits"].as_array().unwrap();
    assert_eq!(found["total_rows"], 620);
    assert!(hits.iter().all(|hit| !hit["text"].as_str().unwrap().contains("okapi 1")));
    place.run(&["verify", "idx", "--sample", "3"]).ok();
}
