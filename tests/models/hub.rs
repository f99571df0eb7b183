//! Fetching from the hub: what arrives, who is asked for what, and who sees the token.

use std::ops::ControlFlow;

use warpseek::model::fetch::FetchEvent;
use warpseek::model::folder::Origin;

use super::*;
use crate::support::hub::Faults;

#[test]
fn hub_serves_the_model_whole() {
    let (world, hub) = World::with_hub();
    let events = RefCell::new(Vec::new());
    let found = world
        .models
        .obtain("tiny", &|event| {
            events.borrow_mut().push(event);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!((found.origin, &found.path), (Origin::Hub, &world.snapshot()));
    world.assert_complete(&found);

    let events = events.into_inner();
    let file = WEIGHTS.to_string();
    let size = Some(40_000);
    assert!(events.contains(&FetchEvent::Started { file: file.clone(), size, resumed: 0 }));
    assert_eq!(events.last(), Some(&FetchEvent::Finished { file }));
    let bytes: u64 = events
        .iter()
        .map(|event| if let FetchEvent::Advanced { bytes } = event { *bytes } else { 0 })
        .sum();
    assert_eq!(bytes, 43_018);
    for asked in hub.log() {
        assert!(asked.path.contains(&format!("/resolve/{COMMIT}/")), "{asked:?}");
    }
}

#[test]
fn hub_is_not_asked_for_what_is_there() {
    let (world, hub) = World::with_hub();
    world.obtain().unwrap();
    let asked = hub.log().len();
    assert_eq!(world.obtain().unwrap().origin, Origin::HubCache);
    assert_eq!(hub.log().len(), asked);

    // Of a copy with one file missing, only that file is fetched.
    std::fs::remove_file(world.snapshot().join("tokenizer.json")).unwrap();
    std::fs::remove_dir_all(world.path("hub/models--stand-in--tiny/blobs")).unwrap();
    world.write_to(&world.path("elsewhere"));
    for file in ["config.json", WEIGHTS] {
        std::fs::remove_file(world.snapshot().join(file)).unwrap();
        std::fs::copy(world.path("elsewhere").join(file), world.snapshot().join(file)).unwrap();
    }
    world.assert_complete(&world.obtain().unwrap());
    assert!(hub.log()[asked..].iter().all(|asked| asked.path.ends_with("tokenizer.json")));
}

#[test]
fn hub_cache_is_the_one_other_programs_read() {
    let (world, hub) = World::with_hub();
    for (file, bytes) in &world.files {
        let served = Served {
            bytes: bytes.clone(),
            etag: sha256(bytes),
            commit: COMMIT.into(),
            moved: None,
        };
        hub.publish("un/listed", "main", file, served);
    }
    let found = world.obtain_name("un/listed").unwrap();
    let cache = hf_hub::Cache::new(world.path("hub")).model("un/listed".into());
    assert_eq!(cache.get(WEIGHTS), Some(found.path.join(WEIGHTS)));
    assert_eq!(cache.get("modules.json"), None);
}

#[test]
fn hub_damaged_blob_in_the_cache_is_replaced() {
    let (world, hub) = World::with_hub();
    world.obtain().unwrap();
    let blob = world.blob(&world.weights_sha256());
    std::fs::write(&blob, noise(40_000, 5)).unwrap();
    assert_says(&reason(world.models.find("tiny")), &["sha256 is"]);

    let found = world.obtain().unwrap();
    world.assert_complete(&found);
    assert_eq!(found.warnings, Vec::<String>::new());
    assert_eq!(hub.gets(WEIGHTS).len(), 2);
    assert_eq!(hub.gets("config.json").len(), 1);
}

#[test]
fn hub_offline_makes_no_request() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.hub_offline = true;
    assert_says(&reason(world.obtain()), &["HF_HUB_OFFLINE is set"]);
    assert_eq!(hub.log().len(), 0);

    world.models.sources.hub_offline = false;
    world.models.sources.offline = true;
    world.models.sources.endpoint = "http://192.0.2.1".into();
    assert_says(&reason(world.obtain()), &["offline, which permits loopback addresses only"]);

    // A hub on this machine is no network.
    world.models.sources.endpoint = hub.url();
    world.assert_complete(&world.obtain().unwrap());
}

#[test]
fn hub_offline_follows_no_redirect_off_this_machine() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.offline = true;
    hub.publish(REPO, "main", WEIGHTS, moved(&world, "http://192.0.2.1/cdn".into()));
    let text = reason(world.obtain());
    assert_says(&text, &["redirects to http://192.0.2.1", "loopback addresses only"]);
}

#[test]
fn hub_token_goes_to_the_endpoint_and_not_to_a_redirect() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.token = Some(Secret::new(TOKEN));
    let cdn = Hub::start();
    cdn.put("/cdn/weights", world.bytes(WEIGHTS));
    hub.publish(REPO, "main", WEIGHTS, moved(&world, format!("{}/cdn/weights", cdn.url())));
    cdn.faults(Faults { cuts: [10_000].into(), ..Faults::default() });
    world.assert_complete(&world.obtain().unwrap());

    let bearer = format!("Bearer {TOKEN}");
    for asked in hub.log() {
        assert_eq!(asked.authorization.as_deref(), Some(bearer.as_str()), "{asked:?}");
    }
    let gets = cdn.gets("/cdn/weights");
    assert_no_byte_twice(&gets, 40_000);
    assert!(gets.iter().all(|asked| asked.authorization.is_none()));
    assert!(cdn.log().iter().all(|asked| asked.method == "GET"));
}

#[test]
fn hub_token_that_a_server_echoes_is_not_shown() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.token = Some(Secret::new(TOKEN));
    world.models.sources.patience.retries = 0;
    let lower = TOKEN.replace('_', "-");
    for token in [TOKEN.to_string(), lower] {
        world.models.sources.token = Some(Secret::new(&token));
        let echo = format!("http://{token}.invalid/x");
        hub.publish(REPO, "main", WEIGHTS, moved(&world, echo));
        let notes = RefCell::new(String::new());
        let result = world.models.obtain("tiny", &|event| {
            *notes.borrow_mut() += &format!("{event:?}");
            ControlFlow::Continue(())
        });
        let text = reason(result);
        assert!(!text.contains(&token) && !notes.borrow().contains(&token), "{text}");
    }
    // Nor is one that no header can carry.
    world.models.sources.token = Some(Secret::new("hf_two\nlines"));
    let text = reason(world.obtain());
    assert_says(&text, &["the access token is malformed: check HF_TOKEN"]);
    assert!(!text.contains("hf_two"));
}

#[test]
fn hub_redirects_within_the_hub_are_followed_with_the_token() {
    let (mut world, hub) = World::with_hub();
    world.models.sources.token = Some(Secret::new(TOKEN));
    // A renamed repository: the old address leads to the new one.
    let at = format!("/stand-in/renamed/resolve/{COMMIT}/{WEIGHTS}");
    hub.publish("stand-in/renamed", "main", WEIGHTS, served(&world));
    hub.publish(REPO, "main", WEIGHTS, Served { etag: "x".into(), ..moved(&world, at) });
    world.assert_complete(&world.obtain().unwrap());
    assert!(hub.log().iter().all(|asked| asked.authorization.is_some()));
    assert!(world.blob(&world.weights_sha256()).exists(), "the last etag counts");
}

#[test]
fn hub_that_is_a_plain_file_server_will_do_for_a_listed_model() {
    let (world, hub) = World::with_hub();
    hub.faults(Faults { plain: true, no_head: true, ..Faults::default() });
    world.assert_complete(&world.obtain().unwrap());

    // Of an unlisted one nothing would be known.
    hub.faults(Faults { plain: true, ..Faults::default() });
    publish_unlisted(&hub, &["config.json", "tokenizer.json", WEIGHTS]);
    assert_says(&reason(world.obtain_name("un/listed")), &["which commit", "check HF_ENDPOINT"]);
}

#[test]
fn hub_names_that_lead_out_of_the_cache_are_not_used() {
    let (world, hub) = World::with_hub();
    let evil = Served { etag: "../../../evil".into(), ..served(&world) };
    hub.publish(REPO, "main", WEIGHTS, evil);
    world.assert_complete(&world.obtain().unwrap());
    assert!(world.blob(&world.weights_sha256()).exists());
    assert!(!world.path("evil").exists());

    let evil = Served { commit: "../../evil".into(), ..served(&world) };
    hub.publish("un/listed", "main", "config.json", evil);
    assert_says(&reason(world.obtain_name("un/listed")), &["which commit"]);
}

#[test]
fn hub_unlisted_model_comes_with_what_describes_it() {
    let (world, hub) = World::with_hub();
    let files = ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json", WEIGHTS];
    publish_unlisted(&hub, &files);
    assert!(world.models.find("un/listed").is_err());
    assert_eq!(hub.log().len(), 0, "finding asks nobody");

    let found = world.obtain_name("un/listed").unwrap();
    assert_eq!((found.name.as_str(), found.revision.as_deref()), ("un/listed", Some("c0ffee")));
    assert_eq!(found.sha256, sha256(&noise(2_000, 17)));
    for file in files {
        assert!(found.path.join(file).is_file(), "{file}");
    }
    assert!(!found.path.join("sentence_bert_config.json").exists());
    let asked = hub.log();
    assert!(asked[0].path.contains("/resolve/main/"));
    let later = asked.iter().skip(2);
    assert!(later.clone().count() > 0);
    assert!(later.into_iter().all(|asked| asked.path.contains("/resolve/c0ffee/")));

    let again = world.models.find("un/listed").unwrap();
    assert_eq!((again.path, again.sha256), (found.path, found.sha256));
}

#[test]
fn hub_unlisted_weights_are_held_against_their_etag() {
    let (world, hub) = World::with_hub();
    publish_unlisted(&hub, &["config.json", "tokenizer.json"]);
    let expected = "a".repeat(64);
    let bytes = noise(2_000, 17);
    let wrong = Served {
        bytes: bytes.clone(),
        etag: expected.clone(),
        commit: "c0ffee".into(),
        moved: None,
    };
    hub.publish("un/listed", "main", WEIGHTS, wrong);
    let text = reason(world.obtain_name("un/listed"));
    assert_says(&text, &[WEIGHTS, &sha256(&bytes), &expected]);
    assert!(world.models.find("un/listed").is_err());
}

#[test]
fn hub_unlisted_model_without_safetensors_says_so() {
    let (world, hub) = World::with_hub();
    publish_unlisted(&hub, &["config.json", "tokenizer.json", "pytorch_model.bin"]);
    let text = reason(world.obtain_name("un/listed"));
    assert_says(&text, &["un/listed", "has no model.safetensors", "pytorch_model.bin, convert"]);
    assert_eq!(hub.gets("pytorch_model.bin").len(), 0);
}

#[test]
fn hub_damaged_models_folder_is_named_though_the_hub_helps_out() {
    let (world, _hub) = World::with_hub();
    world.write_to(&world.path("models/tiny"));
    std::fs::write(world.path("models/tiny/config.json"), "{}").unwrap();
    let found = world.obtain().unwrap();
    assert_eq!(found.origin, Origin::Hub);
    assert_says(&found.warnings[0], &["models/tiny/config.json has 2 bytes, expected 18"]);
}

#[test]
fn hub_is_not_asked_for_a_bundled_model() {
    let (mut world, hub) = World::with_hub();
    world.models.manifest.models[0].source = warpseek::model::manifest::ModelSource::Bundled;
    let text = reason(world.obtain());
    assert_says(&text, &[&format!("put config.json, tokenizer.json, {WEIGHTS} into")]);
    assert!(!text.contains("models pull"));
    assert_eq!(hub.log().len(), 0);
}

/// A repository that no manifest lists; its weights are `noise(2_000, 17)`.
fn publish_unlisted(hub: &Hub, files: &[&str]) {
    for file in files {
        let bytes = noise(2_000, 17);
        let etag = if *file == WEIGHTS { sha256(&bytes) } else { "1234".repeat(10) };
        let served = Served { bytes, etag, commit: "c0ffee".into(), moved: None };
        hub.publish("un/listed", "main", file, served);
    }
}
