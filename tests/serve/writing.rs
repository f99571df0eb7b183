//! Documents added and deleted over HTTP: durable before the reply, visible to the next request,
//! and never in the way of readers.

use crate::cli::{ids, indexed};
use crate::support::cli::{ProgramRun, Workplace, finish};
use crate::support::server::{Answered, JSON, Server, exchange};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn document(id: &str, text: &str) -> Value {
    json!({"id": id, "text": text, "title": "T", "year": 2024})
}

fn put(server: &Server, documents: &Value) -> Answered {
    server.post("/v1/documents", &json!({"documents": documents}))
}

/// The ids that a search finds.
fn find(server: &Server, query: &str, filter: &str) -> Vec<String> {
    let body = json!({"query": query, "filter": filter, "k": 100});
    ids(&server.post("/v1/search", &body).ok())
}

/// Runs a command that writes, once the server has released the index.
fn index_when_free(place: &Workplace, args: &[&str]) -> ProgramRun {
    let started = Instant::now();
    loop {
        let run = place.run(args);
        if run.code != 8 || started.elapsed() > Duration::from_secs(20) {
            return run.ok();
        }
    }
}

#[test]
fn documents_are_found_as_soon_as_the_reply_is_there() {
    let place = indexed(30);
    let server = Server::start(&place, &["idx"]);
    let zebras = || find(&server, "zebra", "id LIKE 'z%'");
    let two = json!([document("z1", "a zebra"), document("z2", "two zebras")]);
    let written = put(&server, &two).ok();
    assert_eq!(written, json!({"added": 2, "updated": 0, "unchanged": 0, "deleted": 0}));
    assert_eq!(zebras().len(), 2);
    let two = json!([document("z1", "a zebra"), document("z2", "three zebras")]);
    let written = put(&server, &two).ok();
    assert_eq!((&written["unchanged"], &written["updated"]), (&json!(1), &json!(1)));
    let delete = || server.send("DELETE", "/v1/documents/z1", &[], b"");
    assert_eq!(delete().ok()["deleted"], 1);
    assert_eq!(zebras(), ["z2"]);
    delete().fails(404, &["no document 'z1'"]);
    // The same document by the command line is the same document.
    place.file("more.jsonl", document("z2", "three zebras").to_string());
    let run = index_when_free(&place, &["index", "more.jsonl", "--into", "idx", "--json"]);
    assert_eq!(run.json()["unchanged"], 1, "{run:?}");
    place.run(&["verify", "idx", "--sample", "3"]).ok();
}

#[test]
fn documents_with_a_title_alone_are_taken_and_told() {
    let place = indexed(5);
    let server = Server::start(&place, &["idx"]);
    let documents = json!([
        {"id": "t1", "title": "An okapi"},
        {"id": "t2", "title": "Two okapis", "text": ""},
        {"id": "t3", "title": "Okapis", "text": null, "year": 2024},
        document("t4", "an okapi in a text"),
    ]);
    let written = put(&server, &documents).ok();
    assert_eq!(written["added"], 4);
    let note = "documents, field 'text': 3 records have no text: its title stands alone";
    assert_eq!(written["notes"], json!([note]));
    assert_eq!(find(&server, "okapi", "id LIKE 't%'").len(), 4);
    let info = server.get("/info").ok();
    assert_eq!(info["indexes"][0]["language"], "none");
}

#[test]
fn bad_documents_change_nothing() {
    let place = indexed(5);
    let server = Server::start(&place, &["idx"]);
    let names = (0..5000).map(|n| (format!("n{n}"), json!(n)));
    let mut wide = json!({"id": "a", "text": "x"});
    wide["inner"] = Value::Object(names.skip(1).collect());
    for (documents, part) in [
        (json!([document("a", "fine"), {"id": "b"}]), "entry 1"),
        (json!([{"text": "x"}]), "there is no id"),
        (json!([{"id": "a", "text": "  "}]), "text is empty"),
        (json!([{"id": "a", "title": " ", "text": ""}]), "text is empty"),
        (json!([{"id": "a", "title": "T", "text": 5}]), "found a number"),
        (json!([{"id": "a", "title": "T", "article": "several words"}]), "there is no text"),
        (json!([document("", "x")]), "id may not be empty"),
        (json!([document("a", "x"), document("a", "y")]), "comes twice"),
        (json!([{"id": 1.5, "text": "x"}]), "integer"),
        (json!([wide]), "5000 metadata fields, and at most 4096 are allowed"),
        (json!([]), "empty"),
        (json!(["x"]), "does not fit"),
    ] {
        put(&server, &documents).fails(400, &[part]);
    }
    assert_eq!(server.get("/info").ok()["indexes"][0]["documents"], 5);
    let only = Server::start(&place, &["idx", "--read-only"]);
    put(&only, &json!([document("a", "x")])).fails(403, &["--read-only"]);
    only.send("DELETE", "/v1/documents/d1", &[], b"").fails(403, &["--read-only"]);
    let with_variable = |value: &str| {
        let mut command = place.command(&["serve", "--port", "0", "idx"]);
        command.env("WARPSEEK_SERVE_READ_ONLY", value);
        command
    };
    let only = Server::from_command(with_variable("1"));
    put(&only, &json!([document("a", "x")])).fails(403, &["--read-only"]);
    let open = Server::from_command(with_variable("0"));
    put(&open, &json!([])).fails(400, &["empty"]);
    finish(&mut with_variable("maybe")).fails(2, &["'maybe'", "--read-only"]);
}

#[test]
fn commits_of_other_processes_become_visible_and_do_not_get_in_the_way() {
    let place = indexed(10);
    let server = Server::start(&place, &["idx"]);
    // The server releases an index that it wrote to.
    put(&server, &json!([document("a", "one")])).ok();
    place.file("more.jsonl", document("other", "an aardvark").to_string());
    index_when_free(&place, &["index", "more.jsonl", "--into", "idx"]);
    let started = Instant::now();
    while find(&server, "aardvark", "id = 'other'").is_empty() {
        assert!(started.elapsed() < Duration::from_secs(20), "the commit stays invisible");
        std::thread::sleep(Duration::from_millis(100));
    }
    index_when_free(&place, &["compact", "idx"]);
    put(&server, &json!([document("b", "after it was compacted")])).ok();
    assert_eq!(server.get("/info").ok()["indexes"][0]["documents"], 13);
}

#[test]
fn readers_see_whole_requests_beside_writers() {
    let place = indexed(10);
    let server = Server::start(&place, &["idx", "--max-concurrent-requests", "64"]);
    let stop = AtomicBool::new(false);
    // Each request writes a pair with one number. A reader of half a request would see two numbers.
    std::thread::scope(|scope| {
        let reader = || {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                let body = json!({"query": "twin", "filter": "id LIKE 'twin%'"});
                let found = server.post("/v1/search", &body).ok();
                let hits = found["hits"].as_array().unwrap().iter();
                let numbers: Vec<&Value> = hits.map(|h| &h["metadata"]["n"]).collect();
                let is_whole = matches!(numbers[..], [a, b] if a == b);
                assert!(numbers.is_empty() || is_whole, "{found}");
                seen += 1;
            }
            seen
        };
        let readers: Vec<_> = (0..2).map(|_| scope.spawn(reader)).collect();
        for n in 0..40 {
            let text = format!("a twin {n}");
            let pair = ["twin0", "twin1"].map(|id| json!({"id": id, "text": text, "n": n}));
            put(&server, &json!(pair)).ok();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 5));
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let place = indexed(5);
    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..4 {
        let server = Server::start(&place, &["idx"]);
        let (sender, receiver) = std::sync::mpsc::channel();
        let address = server.address().to_owned();
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let (sender, address) = (sender.clone(), address.clone());
                scope.spawn(move || {
                    for n in 0.. {
                        let id = format!("r{round}w{writer}n{n}");
                        let body = json!({"documents": [document(&id, "some text")]}).to_string();
                        let Ok(mut stream) = std::net::TcpStream::connect(&address) else { return };
                        let (path, body) = ("/v1/documents", body.as_bytes());
                        match exchange(&mut stream, &address, "POST", path, &JSON, body) {
                            Ok(reply) if reply.status == 200 => sender.send(id).unwrap(),
                            Ok(reply) => assert!(reply.status == 429, "{reply:?}"),
                            Err(_) => return,
                        }
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(250 + 150 * round));
            // Every other server is told to stop, and completes its requests.
            let (signal, code) = if round % 2 == 0 { ("KILL", None) } else { ("TERM", Some(0)) };
            server.signal(signal);
            assert_eq!(server.wait(), code);
        });
        drop(sender);
        acknowledged.extend(receiver);
    }
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    place.run(&["verify", "idx"]).ok();
    place.run(&["export", "idx", "--vectors", "v.npy", "--documents", "d.jsonl"]).ok();
    let text = std::fs::read_to_string(place.path("d.jsonl")).unwrap();
    let lost: Vec<_> =
        acknowledged.iter().filter(|id| !text.contains(&format!("\"{id}\""))).collect();
    assert!(lost.is_empty(), "{lost:?} were acknowledged and are lost");
}

/// A disk that is really full: a file system of 3 MiB in the server's own mount namespace.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_refuses_writes_and_loses_nothing() {
    let place = indexed(5);
    std::fs::create_dir(place.path("disk")).unwrap();
    let mounted = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
        let script = format!("mount -t tmpfs -o size=3m none disk && {script}");
        command.args([&script, env!("CARGO_BIN_EXE_warpseek")]).current_dir(place.path("."));
        for (name, value) in place.command(&[]).get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    };
    if !mounted("true").status().is_ok_and(|status| status.success()) {
        eprintln!("a full disk was not tested: this system allows no mount namespaces");
        return;
    }
    let server = Server::from_command(mounted(
        "cp -r idx disk/idx && head -c 500000 /dev/zero >disk/ballast && \
         exec \"$0\" serve --port 0 disk/idx",
    ));
    let text = "a long text of many words ".repeat(2000);
    let put = |id: &str| put(&server, &json!([document(id, &text)]));
    let find = || {
        let mut found = find(&server, "text", "id LIKE 'full%'");
        found.sort();
        found.dedup();
        found
    };
    let mut acknowledged = Vec::new();
    let full = loop {
        let id = format!("full{:03}", acknowledged.len());
        let reply = put(&id);
        if reply.status != 200 {
            break reply;
        }
        acknowledged.push(id);
        assert!(acknowledged.len() < 100, "3 MiB hold it all");
    };
    full.fails(507, &["documents.db", "disk is full"]);
    assert!(acknowledged.len() > 3, "{acknowledged:?}");
    put("full999").fails(507, &["disk is full"]);
    assert_eq!(find(), acknowledged);
    // Writing goes on once there is room.
    std::fs::remove_file(server.sees(&place.path("disk/ballast"))).unwrap();
    put("full500").ok();
    acknowledged.push("full500".to_owned());
    assert_eq!(find(), acknowledged);
    let paths = [server.sees(&place.path("disk/idx")), place.path("copy")];
    assert!(std::process::Command::new("cp").arg("-r").args(paths).status().unwrap().success());
    place.run(&["verify", "copy"]).ok();
}
