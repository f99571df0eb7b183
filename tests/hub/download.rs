//! Downloads from the hub: files, requests, redirects, and the servers that see the token.

use warpseek_hub::{ModelOrigin, ModelSource};

use super::*;

/// A repository that no manifest lists. The content of every file is `noise(2_000, 17)`.
fn publish_unlisted(hub: &Hub, files: &[&str]) {
    let bytes = noise(2_000, 17);
    for file in files {
        let etag = if *file == WEIGHTS { sha256(&bytes) } else { "1234".repeat(10) };
        hub.publish("un/listed", file, HubFile::new(&bytes, &etag, "c0ffee"));
    }
}

fn get_unlisted(world: &World) -> Result<ModelFolder> {
    world.models.get_or_download("un/listed", &no_progress)
}

#[test]
fn hub_serves_the_whole_model() {
    let (world, hub) = World::with_hub();
    let (found, events) = world.watch(|_| false);
    let found = found.unwrap();
    assert_eq!((found.origin, &found.path), (ModelOrigin::Hub, &world.snapshot()));
    world.assert_complete(&found);

    let (file, size) = (WEIGHTS.to_string(), Some(40_000));
    assert!(events.contains(&FetchEvent::Started { file: file.clone(), size, resumed: 0 }));
    assert_eq!(events.last(), Some(&FetchEvent::Finished { file }));
    let bytes = |event: &FetchEvent| match event {
        FetchEvent::Advanced { bytes } => *bytes,
        _ => 0,
    };
    assert_eq!(events.iter().map(bytes).sum::<u64>(), 43_018);
    for request in hub.log() {
        assert!(request.path.contains(&format!("/resolve/{COMMIT}/")), "{request:?}");
    }
}

#[test]
fn hub_is_not_asked_for_what_is_there() {
    let (world, hub) = World::with_hub();
    world.get().unwrap();
    let asked = hub.log().len();
    assert_eq!(world.get().unwrap().origin, ModelOrigin::HubCache);
    assert_eq!(hub.log().len(), asked);

    // Of a copy with one missing file, only that file is downloaded.
    std::fs::remove_dir_all(world.path("hub/models--stand-in--tiny")).unwrap();
    world.write_to(&world.snapshot());
    std::fs::remove_file(world.snapshot().join(TOKENIZER)).unwrap();
    world.assert_complete(&world.get().unwrap());
    assert!(hub.log()[asked..].iter().all(|request| request.path.ends_with(TOKENIZER)));
}

#[test]
fn hub_cache_is_the_one_other_programs_read() {
    let (world, hub) = World::with_hub();
    for (file, bytes) in &world.files {
        hub.publish("un/listed", file, HubFile::new(bytes, &sha256(bytes), COMMIT));
    }
    let found = get_unlisted(&world).unwrap();
    let cache = hf_hub::Cache::new(world.path("hub")).model("un/listed".into());
    assert_eq!(cache.get(WEIGHTS), Some(found.path.join(WEIGHTS)));
    assert_eq!(cache.get("modules.json"), None);
}

#[test]
fn hub_damaged_blob_in_the_cache_is_replaced() {
    let (world, hub) = World::with_hub();
    world.get().unwrap();
    std::fs::write(world.blob(&world.sha256()), noise(40_000, 5)).unwrap();
    assert_says(&reason(world.find()), &["sha256 is"]);

    let found = world.get().unwrap();
    world.assert_complete(&found);
    assert_eq!(found.warnings, Vec::<String>::new());
    assert_eq!((hub.gets(WEIGHTS).len(), hub.gets(CONFIG).len()), (2, 1));
}

#[test]
fn token_is_not_sent_unencrypted_to_another_machine() {
    let (mut world, _hub) = World::with_hub();
    world.models.sources.token = Some(Secret::new(TOKEN));
    world.models.sources.endpoint = "http://192.0.2.1".into();
    let parts = ["http://192.0.2.1", "unencrypted", "HF_ENDPOINT", "HF_TOKEN"];
    let reason = reason(world.get());
    assert_says(&reason, &parts);
    assert!(!reason.contains(TOKEN), "{reason}");
}

#[test]
fn hub_offline_makes_no_request() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.hub_offline = true;
    assert_says(&reason(world.get()), &["HF_HUB_OFFLINE is set"]);
    assert_eq!(hub.log().len(), 0);

    world.models.sources.hub_offline = false;
    world.models.sources.offline = true;
    world.models.sources.endpoint = "http://192.0.2.1".into();
    assert_says(&reason(world.get()), &["offline permits loopback addresses only"]);

    // A hub on this machine is permitted.
    world.models.sources.endpoint = hub.url();
    world.assert_complete(&world.get().unwrap());
}

#[test]
fn hub_offline_follows_no_redirect_to_another_machine() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.offline = true;
    hub.publish(REPO, WEIGHTS, world.moved("http://192.0.2.1/cdn".into()));
    let text = reason(world.get());
    assert_says(&text, &["redirects to http://192.0.2.1", "loopback addresses only"]);
}

#[test]
fn hub_token_goes_to_the_endpoint_and_not_to_a_redirect() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.token = Some(Secret::new(TOKEN));
    let cdn = Hub::start();
    cdn.put("/cdn/weights", world.weights());
    hub.publish(REPO, WEIGHTS, world.moved(format!("{}/cdn/weights", cdn.url())));
    cdn.faults(Faults { cuts: [10_000].into(), ..Faults::default() });
    world.assert_complete(&world.get().unwrap());

    let bearer = format!("Bearer {TOKEN}");
    for request in hub.log() {
        assert_eq!(request.authorization.as_deref(), Some(bearer.as_str()), "{request:?}");
    }
    let gets = cdn.gets("/cdn/weights");
    assert_no_byte_twice(&gets, 40_000);
    assert!(gets.iter().all(|request| request.authorization.is_none()));
    assert!(cdn.log().iter().all(|request| request.method == "GET"));
}

#[test]
fn hub_token_that_a_server_echoes_is_not_shown() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.retry.retries = 0;
    for token in [TOKEN.to_string(), TOKEN.replace('_', "-")] {
        world.models.sources.token = Some(Secret::new(&token));
        hub.publish(REPO, WEIGHTS, world.moved(format!("http://{token}.invalid/x")));
        let (result, events) = world.watch(|_| false);
        let text = reason(result) + &format!("{events:?}");
        assert!(!text.contains(&token), "{text}");
    }
    // Nor is one that no header can carry.
    world.models.sources.token = Some(Secret::new("hf_two\nlines"));
    let text = reason(world.get());
    assert_says(&text, &["a header cannot carry: check HF_TOKEN"]);
    assert!(!text.contains("hf_two"));
}

#[test]
fn hub_redirects_within_the_hub_are_followed_with_the_token() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.token = Some(Secret::new(TOKEN));
    // A renamed repository: the old address leads to the new one.
    let new = format!("/stand-in/renamed/resolve/{COMMIT}/{WEIGHTS}");
    hub.publish("stand-in/renamed", WEIGHTS, world.served());
    hub.publish(REPO, WEIGHTS, HubFile { etag: "x".into(), ..world.moved(new) });
    world.assert_complete(&world.get().unwrap());
    assert!(hub.log().iter().all(|request| request.authorization.is_some()));
    assert!(world.blob(&world.sha256()).exists(), "the last etag counts");
}

#[test]
fn hub_that_is_a_plain_file_server_suffices_for_a_listed_model() {
    let (world, hub) =
        World::with_faults(Faults { plain: true, no_head: true, ..Faults::default() });
    world.assert_complete(&world.get().unwrap());

    // Of an unlisted one nothing would be known.
    hub.faults(Faults { plain: true, ..Faults::default() });
    publish_unlisted(&hub, &[CONFIG, TOKENIZER, WEIGHTS]);
    assert_says(&reason(get_unlisted(&world)), &["which commit", "check HF_ENDPOINT"]);
}

#[test]
fn hub_names_that_lead_out_of_the_cache_are_not_used() {
    let (world, hub) = World::with_hub();
    hub.publish(REPO, WEIGHTS, HubFile { etag: "../../../evil".into(), ..world.served() });
    world.assert_complete(&world.get().unwrap());
    assert!(world.blob(&world.sha256()).exists());
    assert!(!world.path("evil").exists());

    let evil = HubFile { commit: "../../evil".into(), ..world.served() };
    hub.publish("un/listed", CONFIG, evil);
    assert_says(&reason(get_unlisted(&world)), &["which commit"]);
}

#[test]
fn hub_unlisted_model_comes_with_the_files_that_describe_it() {
    let (world, hub) = World::with_hub();
    let files = [CONFIG, TOKENIZER, "modules.json", "1_Pooling/config.json", WEIGHTS];
    publish_unlisted(&hub, &files);
    assert!(world.models.find("un/listed").is_err());
    assert_eq!(hub.log().len(), 0, "find makes no request");

    let found = get_unlisted(&world).unwrap();
    assert_eq!((found.name.as_str(), found.revision.as_deref()), ("un/listed", Some("c0ffee")));
    assert_eq!((found.origin, &found.sha256), (ModelOrigin::Hub, &sha256(&noise(2_000, 17))));
    for file in files {
        assert!(found.path.join(file).is_file(), "{file}");
    }
    assert!(!found.path.join("sentence_bert_config.json").exists());
    let asked = hub.log();
    assert!(asked[0].path.contains("/resolve/main/") && asked.len() > 2);
    assert!(asked[2..].iter().all(|request| request.path.contains("/resolve/c0ffee/")));

    let again = world.models.find("un/listed").unwrap();
    assert_eq!((again.path, again.sha256), (found.path, found.sha256));
}

#[test]
fn hub_unlisted_weights_are_compared_with_their_etag() {
    let (world, hub) = World::with_hub();
    publish_unlisted(&hub, &[CONFIG, TOKENIZER]);
    let (bytes, expected) = (noise(2_000, 17), "a".repeat(64));
    hub.publish("un/listed", WEIGHTS, HubFile::new(&bytes, &expected, "c0ffee"));
    assert_says(&reason(get_unlisted(&world)), &[WEIGHTS, &sha256(&bytes), &expected]);
    assert!(world.models.find("un/listed").is_err());
}

#[test]
fn hub_unlisted_model_without_safetensors_says_so() {
    let (world, hub) = World::with_hub();
    publish_unlisted(&hub, &[CONFIG, TOKENIZER, "pytorch_model.bin"]);
    let text = reason(get_unlisted(&world));
    assert_says(&text, &["un/listed", "model.safetensors", "pytorch_model.bin, convert"]);
    assert_eq!(hub.gets("pytorch_model.bin").len(), 0);
}

#[test]
fn hub_damaged_models_folder_is_named_although_the_download_succeeds() {
    let (world, _hub) = World::with_hub();
    world.write_to(&world.path("models/tiny"));
    std::fs::write(world.path("models/tiny/config.json"), "{}").unwrap();
    let found = world.get().unwrap();
    assert_eq!(found.origin, ModelOrigin::Hub);
    assert_says(&found.warnings[0], &["models/tiny/config.json has 2 bytes, expected 18"]);
}

#[test]
fn hub_is_not_asked_for_a_bundled_model() {
    let (mut world, hub) = World::with_hub();
    world.models.manifest.models[0].source = ModelSource::Bundled;
    let text = reason(world.get());
    assert_says(&text, &[&format!("put config.json, tokenizer.json, {WEIGHTS} into")]);
    assert!(!text.contains("models pull"));
    assert_eq!(hub.log().len(), 0);
}
