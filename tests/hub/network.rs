//! Faults of the hub and the network: cuts, silence, refusals, wrong content, concurrent downloads.

use std::net::TcpListener;
use std::time::Instant;

use super::*;

/// Cuts for the weights; the first two answers are for the small files.
fn cuts(weights: &[usize]) -> Faults {
    Faults { cuts: [&[99_999, 99_999], weights].concat().into(), ..Faults::default() }
}

#[test]
fn hub_transfer_that_is_cut_resumes_within_the_call() {
    let (world, hub) = World::with_faults(cuts(&[12_345, 20_000]));
    world.assert_complete(&world.get().unwrap());
    let gets = hub.gets(WEIGHTS);
    let ranges: Vec<_> = gets.iter().map(|request| request.range).collect();
    assert_eq!(ranges, [None, Some((12_345, None)), Some((32_345, None))]);
    assert_no_byte_twice(&gets, 40_000);
}

#[test]
fn hub_transfer_that_is_cut_resumes_in_the_next_call() {
    let (mut world, hub) = World::with_faults(cuts(&[12_345]));
    world.models.sources.retry.retries = 0;
    assert_says(&reason(world.get()), &[WEIGHTS, "cut at byte 12345 of 40000", REPO]);
    assert_eq!(world.part().metadata().unwrap().len(), 12_345);

    world.assert_complete(&world.get().unwrap());
    assert_no_byte_twice(&hub.gets(WEIGHTS), 40_000);
    assert!(!world.part().exists());
}

#[test]
fn hub_transfer_with_progress_survives_any_number_of_cuts() {
    let mut world = World::with_weights(5 << 20);
    let hub = Hub::start();
    world.models.sources.endpoint = hub.url();
    world.models.sources.retry.retries = 1;
    world.publish(&hub);
    hub.faults(cuts(&[1 << 20; 4]));
    world.assert_complete(&world.get().unwrap());
    assert_no_byte_twice(&hub.gets(WEIGHTS), 5 << 20);

    // One without progress is given up.
    let (mut world, hub) = World::with_faults(Faults { cuts: [0; 9].into(), ..Faults::default() });
    world.models.sources.retry.retries = 2;
    assert_says(&reason(world.get()), &["cut at byte 0 of 18"]);
    assert_eq!(hub.gets(CONFIG).len(), 3);
}

#[test]
fn hub_server_that_ignores_ranges_sends_the_file_again() {
    let (world, hub) = World::with_faults(Faults { ignore_range: true, ..cuts(&[12_345]) });
    let (found, events) = world.watch(|_| false);
    world.assert_complete(&found.unwrap());
    let sent: Vec<_> = hub.gets(WEIGHTS).iter().map(|request| request.sent).collect();
    assert_eq!(sent, [(0, 12_345), (0, 40_000)]);
    assert_says(&format!("{events:?}"), &["cannot resume; starting from zero"]);
}

#[test]
fn hub_partial_file_that_cannot_be_right_is_started_over() {
    for (length, gets) in [(50_000, 1), (20_000, 2), (40_000, 1)] {
        let (world, hub) = World::with_hub();
        std::fs::create_dir_all(world.blob("")).unwrap();
        std::fs::write(world.part(), vec![7; length]).unwrap();
        world.assert_complete(&world.get().unwrap());
        assert_eq!(hub.gets(WEIGHTS).len(), gets, "{length}");
    }
}

#[test]
fn hub_partial_file_of_unknown_size_recovers_from_416() {
    let (mut world, hub) = World::with_hub();
    for file in &mut world.models.manifest.models[0].files {
        file.size = None;
    }
    std::fs::create_dir_all(world.blob("")).unwrap();
    std::fs::write(world.part(), vec![7; 50_000]).unwrap();
    hub.faults(Faults { no_head: true, ..Faults::default() });
    world.assert_complete(&world.get().unwrap());
    let statuses: Vec<_> = hub.gets(WEIGHTS).iter().map(|request| request.status).collect();
    assert_eq!(statuses, [416, 200]);
}

#[test]
fn hub_wrong_content_is_refused_and_does_not_stay() {
    let (world, hub) = World::with_hub();
    let (wrong, etag) = (noise(40_000, 99), world.sha256());
    hub.publish(REPO, WEIGHTS, HubFile::new(&wrong, &etag, COMMIT));
    let says = format!("sha256 is {}, expected {etag}", sha256(&wrong));
    assert_says(&reason(world.get()), &[WEIGHTS, &says]);
    assert_eq!(hub.gets(WEIGHTS).len(), 2, "once more from zero, then no more");
    for path in [world.blob(&etag), world.part(), world.snapshot().join(WEIGHTS)] {
        assert!(!path.exists(), "{}", path.display());
    }
    world.publish(&hub);
    world.assert_complete(&world.get().unwrap());
}

#[test]
fn hub_wrong_size_is_refused_before_the_transfer() {
    let (world, hub) = World::with_hub();
    hub.publish(REPO, WEIGHTS, HubFile::new(&noise(39_999, 9), "e", COMMIT));
    assert_says(&reason(world.get()), &[WEIGHTS, "has 39999 bytes there, expected 40000"]);
    assert_eq!(hub.gets(WEIGHTS).len(), 0);
}

#[test]
fn hub_refusals_say_what_to_do() {
    let cases: [(u16, &str, bool, &[&str]); 7] = [
        (401, "", false, &["private or gated, or does not exist", "set HF_TOKEN"]),
        (401, "", true, &["status 401", "access token in use does not permit"]),
        (403, "GatedRepo", false, &["accept its licence on", "/stand-in/tiny", "set HF_TOKEN"]),
        (403, "", true, &["status 403: it is gated or private", "does not permit"]),
        (404, "EntryNotFound", false, &["config.json", "status 404: no such file"]),
        (404, "RevisionNotFound", false, &["no such revision"]),
        (404, "RepoNotFound", false, &["no such repository"]),
    ];
    for (status, code, with_token, says) in cases {
        let (mut world, hub) =
            World::with_faults(Faults { refuse: Some((status, code)), ..Faults::default() });
        world.models.sources.token = with_token.then(|| Secret::new(TOKEN));
        let text = reason(world.get());
        assert_says(&text, says);
        assert_says(&text, &[REPO, COMMIT, &hub.url()]);
        assert!(!text.contains(TOKEN));
        assert_eq!(hub.log().len(), 1, "{status} is not asked again");
    }
}

#[test]
fn hub_in_trouble_is_asked_again() {
    let (world, hub) =
        World::with_faults(Faults { statuses: [503, 500, 429].into(), ..Faults::default() });
    world.assert_complete(&world.get().unwrap());
    let statuses: Vec<_> = hub.gets(CONFIG).iter().map(|request| request.status).collect();
    assert_eq!(statuses, [503, 500, 429, 200]);

    let (world, hub) = World::with_faults(Faults { refuse: Some((503, "")), ..Faults::default() });
    assert_says(&reason(world.get()), &["status 503"]);
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
        let text = reason(world.get());
        assert!(text.lines().any(|line| line.contains(says)), "'{says}' is not in:\n{text}");
        assert!(!text.contains("pull tiny"), "a download was tried already:\n{text}");
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
        let (mut world, hub) = World::with_faults(faults);
        world.models.sources.timeouts.stall = Duration::from_millis(200);
        world.models.sources.retry.retries = 2;
        let started = Instant::now();
        assert_says(&reason(world.get()), &["sent nothing for 0.2 s", CONFIG]);
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(hub.gets(CONFIG).len(), gets, "{:#?}", hub.log());
    }
}

#[test]
fn hub_link_that_expired_is_requested_again() {
    let (world, hub) = World::with_hub();
    let cdn = Hub::start();
    cdn.put("/cdn/weights", world.weights());
    hub.publish(REPO, WEIGHTS, world.moved(format!("{}/cdn/weights", cdn.url())));
    cdn.faults(Faults { statuses: [403].into(), ..Faults::default() });
    world.assert_complete(&world.get().unwrap());
    assert_eq!(hub.gets(WEIGHTS).len(), 2);
}

#[test]
fn hub_redirects_without_end_are_given_up() {
    let (world, hub) = World::with_hub();
    hub.publish(REPO, WEIGHTS, world.moved(format!("/{REPO}/resolve/{COMMIT}/{WEIGHTS}")));
    assert_says(&reason(world.get()), &["redirects without end"]);
}

#[test]
fn hub_download_stops_when_asked_and_resumes_later() {
    let (world, hub) = World::with_hub();
    let at_weights =
        |event: &FetchEvent| matches!(event, FetchEvent::Started { file, .. } if file == WEIGHTS);
    assert_eq!(world.watch(at_weights).0.unwrap_err().exit_code(), 130);
    assert!(world.find().is_err());
    world.assert_complete(&world.get().unwrap());
    assert_eq!(hub.gets(CONFIG).len(), 1);
}

#[test]
fn hub_downloads_at_the_same_time_make_one_request_per_file() {
    let (world, hub) = World::with_hub();
    let results = std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| world.get()));
        both.map(|thread| thread.join().unwrap())
    });
    for result in results {
        world.assert_complete(&result.unwrap());
    }
    for (file, _) in &world.files {
        assert_eq!(hub.gets(file).len(), 1, "{file}");
    }
}
