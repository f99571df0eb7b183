//! A hub in trouble: cuts, silence, refusals, wrong content, and two fetches at once.

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::time::Instant;

use warpseek::model::fetch::FetchEvent;

use super::*;
use crate::support::hub::Faults;

#[test]
fn hub_transfer_that_is_cut_resumes_within_the_call() {
    let (world, hub) = World::with_hub();
    // The first two answers are for the small files.
    hub.faults(Faults { cuts: [99_999, 99_999, 12_345, 20_000].into(), ..Faults::default() });
    world.assert_complete(&world.obtain().unwrap());
    let gets = hub.gets(WEIGHTS);
    let ranges: Vec<_> = gets.iter().map(|asked| asked.range).collect();
    assert_eq!(ranges, [None, Some((12_345, None)), Some((32_345, None))]);
    assert_no_byte_twice(&gets, 40_000);
}

#[test]
fn hub_transfer_that_is_cut_resumes_in_the_next_call() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.patience.retries = 0;
    hub.faults(Faults { cuts: [99_999, 99_999, 12_345].into(), ..Faults::default() });
    let text = reason(world.obtain());
    assert_says(&text, &[WEIGHTS, "cut at byte 12345 of 40000", REPO]);
    let part = world.blob(&format!("{}.part", world.weights_sha256()));
    assert_eq!(part.metadata().unwrap().len(), 12_345);

    world.assert_complete(&world.obtain().unwrap());
    assert_no_byte_twice(&hub.gets(WEIGHTS), 40_000);
    assert!(!part.exists());
}

#[test]
fn hub_transfer_that_gets_on_outlasts_any_number_of_cuts() {
    let mut world = World::with_weights(5 << 20);
    let hub = Hub::start();
    world.models.sources.endpoint = hub.url();
    world.models.sources.patience.retries = 1;
    world.publish(&hub);
    let cuts = [99_999, 99_999, 1 << 20, 1 << 20, 1 << 20, 1 << 20];
    hub.faults(Faults { cuts: cuts.into(), ..Faults::default() });
    world.assert_complete(&world.obtain().unwrap());
    assert_no_byte_twice(&hub.gets(WEIGHTS), 5 << 20);

    // But one that does not is given up.
    let (mut world, hub) = World::with_hub();
    world.models.sources.patience.retries = 2;
    hub.faults(Faults { cuts: [0; 9].into(), ..Faults::default() });
    assert_says(&reason(world.obtain()), &["cut at byte 0 of 18"]);
    assert_eq!(hub.gets("config.json").len(), 3);
}

#[test]
fn hub_server_that_ignores_ranges_sends_the_file_anew() {
    let (world, hub) = World::with_hub();
    let cuts = [99_999, 99_999, 12_345].into();
    hub.faults(Faults { cuts, ignore_range: true, ..Faults::default() });
    let notes = RefCell::new(Vec::new());
    let found = world.models.obtain("tiny", &|event| {
        notes.borrow_mut().push(format!("{event:?}"));
        ControlFlow::Continue(())
    });
    world.assert_complete(&found.unwrap());
    let sent: Vec<_> = hub.gets(WEIGHTS).iter().map(|asked| asked.sent).collect();
    assert_eq!(sent, [(0, 12_345), (0, 40_000)]);
    assert_says(&notes.into_inner().join("\n"), &["cannot resume; starting from zero"]);
}

#[test]
fn hub_partial_file_that_cannot_be_right_is_started_over() {
    for (length, gets) in [(50_000, 1), (20_000, 2), (40_000, 1)] {
        let (world, hub) = World::with_hub();
        let part = world.blob(&format!("{}.part", world.weights_sha256()));
        std::fs::create_dir_all(part.parent().unwrap()).unwrap();
        std::fs::write(&part, vec![7; length]).unwrap();
        world.assert_complete(&world.obtain().unwrap());
        assert_eq!(hub.gets(WEIGHTS).len(), gets, "{length}");
    }
}

#[test]
fn hub_partial_file_of_unknown_size_recovers_from_416() {
    let (mut world, hub) = World::with_hub();
    for file in &mut world.models.manifest.models[0].files {
        file.size = None;
    }
    let part = world.blob(&format!("{}.part", world.weights_sha256()));
    std::fs::create_dir_all(part.parent().unwrap()).unwrap();
    std::fs::write(&part, vec![7; 50_000]).unwrap();
    hub.faults(Faults { no_head: true, ..Faults::default() });
    world.assert_complete(&world.obtain().unwrap());
    let statuses: Vec<_> = hub.gets(WEIGHTS).iter().map(|asked| asked.status).collect();
    assert_eq!(statuses, [416, 200]);
}

#[test]
fn hub_wrong_content_is_refused_and_does_not_stay() {
    let (world, hub) = World::with_hub();
    let bad = noise(40_000, 99);
    let etag = world.weights_sha256();
    hub.publish(
        REPO,
        "main",
        WEIGHTS,
        Served { bytes: bad.clone(), etag: etag.clone(), commit: COMMIT.into(), moved: None },
    );
    let text = reason(world.obtain());
    assert_says(&text, &[WEIGHTS, &format!("sha256 is {}, expected {etag}", sha256(&bad))]);
    assert_eq!(hub.gets(WEIGHTS).len(), 2, "once more from zero, then no more");
    assert!(!world.blob(&etag).exists());
    assert!(!world.blob(&format!("{etag}.part")).exists());
    assert!(!world.snapshot().join(WEIGHTS).exists());

    world.publish(&hub);
    world.assert_complete(&world.obtain().unwrap());
}

#[test]
fn hub_wrong_size_is_refused_before_the_transfer() {
    let (world, hub) = World::with_hub();
    let served =
        Served { bytes: noise(39_999, 9), etag: "e".into(), commit: COMMIT.into(), moved: None };
    hub.publish(REPO, "main", WEIGHTS, served);
    assert_says(&reason(world.obtain()), &[WEIGHTS, "has 39999 bytes there, expected 40000"]);
    assert_eq!(hub.gets(WEIGHTS).len(), 0);
}

#[test]
fn hub_refusals_say_what_to_do() {
    let cases: [(u16, &str, bool, &[&str]); 7] = [
        (401, "", false, &["private or gated, or does not exist", "set HF_TOKEN"]),
        (401, "", true, &["status 401", "access token in use does not permit"]),
        (403, "GatedRepo", false, &["accept its licence on", "/stand-in/tiny", "set HF_TOKEN"]),
        (403, "", true, &["gated or private (status 403)", "does not permit"]),
        (404, "EntryNotFound", false, &["config.json (status 404)"]),
        (404, "RevisionNotFound", false, &["no such revision"]),
        (404, "RepoNotFound", false, &["no such repository"]),
    ];
    for (status, code, with_token, says) in cases {
        let (mut world, hub) = World::with_hub();
        world.models.sources.token = with_token.then(|| Secret::new(TOKEN));
        hub.faults(Faults { refuse: Some((status, code)), ..Faults::default() });
        let text = reason(world.obtain());
        assert_says(&text, says);
        assert_says(&text, &[REPO, COMMIT, &hub.url()]);
        assert!(!text.contains(TOKEN));
        assert_eq!(hub.log().len(), 1, "{status} is not asked again");
    }
}

#[test]
fn hub_in_trouble_is_asked_again() {
    let (world, hub) = World::with_hub();
    hub.faults(Faults { statuses: [503, 500, 429].into(), ..Faults::default() });
    world.assert_complete(&world.obtain().unwrap());
    let statuses: Vec<_> = hub.gets("config.json").iter().map(|asked| asked.status).collect();
    assert_eq!(statuses, [503, 500, 429, 200]);

    let (world, hub) = World::with_hub();
    hub.faults(Faults { refuse: Some((503, "")), ..Faults::default() });
    assert_says(&reason(world.obtain()), &["status 503"]);
    assert_eq!(hub.log().len(), 4);
}

#[test]
fn hub_out_of_reach_is_told_in_one_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cases = [
        (format!("http://{free}"), "refused the connection"),
        ("http://no-such-host.invalid".to_string(), "cannot be resolved"),
        ("ftp://127.0.0.1".to_string(), "check HF_ENDPOINT"),
        ("huggingface".to_string(), "check HF_ENDPOINT"),
    ];
    for (endpoint, says) in cases {
        let mut world = World::new();
        world.models.sources.endpoint = endpoint;
        let text = reason(world.obtain());
        let line = text.lines().find(|line| line.contains(says));
        assert!(line.is_some(), "'{says}' is not in:\n{text}");
        assert!(!text.contains("pull tiny"), "fetching was tried already:\n{text}");
    }
}

#[test]
fn hub_that_falls_silent_is_given_up() {
    let silences = [
        (Faults { silent: true, ..Faults::default() }, 0),
        (Faults { stall_after: Some(0), ..Faults::default() }, 1),
        // Bytes came before the silence, so that two retries are worth it.
        (Faults { stall_after: Some(5), ..Faults::default() }, 3),
    ];
    for (faults, gets) in silences {
        let (mut world, hub) = World::with_hub();
        world.models.sources.patience.stall = Duration::from_millis(200);
        world.models.sources.patience.retries = 2;
        hub.faults(faults);
        let started = Instant::now();
        assert_says(&reason(world.obtain()), &["sent nothing for 0.2 s", "config.json"]);
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(hub.gets("config.json").len(), gets, "{:#?}", hub.log());
    }
}

#[test]
fn hub_link_that_ran_out_is_asked_for_anew() {
    let (world, hub) = World::with_hub();
    let cdn = Hub::start();
    cdn.put("/cdn/weights", world.bytes(WEIGHTS));
    hub.publish(REPO, "main", WEIGHTS, moved(&world, format!("{}/cdn/weights", cdn.url())));
    cdn.faults(Faults { statuses: [403].into(), ..Faults::default() });
    world.assert_complete(&world.obtain().unwrap());
    assert_eq!(hub.gets(WEIGHTS).len(), 2);
}

#[test]
fn hub_redirects_without_end_are_given_up() {
    let (world, hub) = World::with_hub();
    let circle = format!("/{REPO}/resolve/{COMMIT}/{WEIGHTS}");
    hub.publish(REPO, "main", WEIGHTS, moved(&world, circle));
    assert_says(&reason(world.obtain()), &["redirects without end"]);
}

#[test]
fn hub_fetch_stops_when_asked_and_goes_on_later() {
    let (world, hub) = World::with_hub();
    let stop = |event| match event {
        FetchEvent::Started { file, .. } if file == WEIGHTS => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let error = world.models.obtain("tiny", &stop).unwrap_err();
    assert_eq!(error.exit_code(), 130);
    assert!(world.models.find("tiny").is_err());
    world.assert_complete(&world.obtain().unwrap());
    assert_eq!(hub.gets("config.json").len(), 1);
}

#[test]
fn hub_fetched_twice_at_once_is_asked_once() {
    let (world, hub) = World::with_hub();
    let results = std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| world.obtain()));
        both.map(|thread| thread.join().unwrap())
    });
    for result in results {
        world.assert_complete(&result.unwrap());
    }
    for (file, _) in &world.files {
        assert_eq!(hub.gets(file).len(), 1, "{file}");
    }
}
