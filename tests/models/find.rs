//! Looking on this machine: order, damage, explicit folders, remembered checksums.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use warpseek::model::folder::Origin;

use super::*;

#[test]
fn find_with_nothing_there_lists_every_place_and_the_cure() {
    let world = World::new();
    let text = reason(world.models.find("tiny"));
    assert_says(
        &text,
        &[
            "model 'tiny' is not available",
            &format!("{}: nothing there", world.path("models/tiny").display()),
            &format!("{}: nothing there", world.snapshot().display()),
            "warpseek models pull tiny",
            "config.json, tokenizer.json, model.safetensors",
        ],
    );
}

#[test]
fn find_models_folder_beats_cache() {
    let world = World::new();
    world.write_to(&world.snapshot());
    assert_eq!(world.models.find("tiny").unwrap().origin, Origin::HubCache);

    world.write_to(&world.path("models/tiny"));
    let found = world.models.find(REPO).unwrap();
    assert_eq!(found.origin, Origin::ModelsDir);
    assert_eq!(found.path, world.path("models/tiny"));
    assert_eq!(found.warnings, Vec::<String>::new());
    world.assert_complete(&found);
}

#[test]
fn find_damaged_copy_is_passed_over_and_named() {
    let world = World::new();
    world.write_to(&world.snapshot());
    world.write_to(&world.path("models/tiny"));
    let damaged = world.path("models/tiny/model.safetensors");
    let mut bytes = world.bytes("model.safetensors").to_vec();
    bytes[777] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();

    let found = world.models.find("tiny").unwrap();
    assert_eq!(found.origin, Origin::HubCache);
    let flaw = format!(
        "{}: sha256 is {}, expected {}",
        damaged.display(),
        sha256(&bytes),
        world.weights_sha256()
    );
    assert_eq!(found.warnings, std::slice::from_ref(&flaw));

    // With no other copy the damage is in the error.
    std::fs::remove_dir_all(world.path("hub")).unwrap();
    assert_says(&reason(world.models.find("tiny")), &[&flaw]);
}

#[test]
fn find_short_or_missing_file_is_named() {
    let world = World::new();
    let folder = world.path("models/tiny");
    world.write_to(&folder);
    std::fs::remove_file(folder.join("config.json")).unwrap();
    std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    assert_says(
        &reason(world.models.find("tiny")),
        &[
            &format!("{} is missing", folder.join("config.json").display()),
            &format!("{} has 2 bytes, expected 3000", folder.join("tokenizer.json").display()),
        ],
    );
}

#[test]
fn find_takes_any_snapshot_whose_files_match() {
    let world = World::new();
    // Another commit of the repository's former name.
    let other = world.path("hub/models--stand-in--tiny-old/snapshots/abc");
    world.write_to(&other);
    let found = world.models.find("tiny").unwrap();
    assert_eq!((found.path, found.origin), (other.clone(), Origin::HubCache));

    std::fs::write(other.join("config.json"), "{}").unwrap();
    assert_says(&reason(world.models.find("tiny")), &[&other.display().to_string()]);
}

#[test]
fn find_explicit_folder_of_a_listed_model_gets_its_entry() {
    let world = World::new();
    let folder = world.path("somewhere");
    world.write_to(&folder);
    let found = world.models.find(folder.to_str().unwrap()).unwrap();
    assert_eq!(found.origin, Origin::Explicit);
    assert_eq!(found.spec.unwrap().name, "tiny");
    assert_eq!(found.revision.as_deref(), Some(COMMIT));
}

#[test]
fn find_explicit_folder_that_is_unlisted_returns_its_hash() {
    let world = World::new();
    // Named as a listed model, so that the difference is worth a warning.
    let folder = world.path("mine/tiny");
    world.write_to(&folder);
    std::fs::write(folder.join("model.safetensors"), b"other weights").unwrap();
    let found = world.models.find(folder.to_str().unwrap()).unwrap();
    assert_eq!(found.sha256, sha256(b"other weights"));
    assert_eq!((&found.spec, &found.revision), (&None, &None));
    assert_eq!(Path::new(&found.name), folder);
    assert_eq!(found.warnings.len(), 1);
    assert_says(&found.warnings[0], &["that of tiny is", &world.weights_sha256()]);

    // The right weights with another tokenizer are not the listed model either.
    world.write_to(&folder);
    std::fs::write(folder.join("tokenizer.json"), b"{}").unwrap();
    let found = world.models.find(folder.to_str().unwrap()).unwrap();
    assert_eq!(found.spec, None);
    assert_says(&found.warnings[0], &["tokenizer.json has 2 bytes, expected 3000"]);
}

#[test]
fn find_explicit_folder_that_cannot_be_opened_says_why() {
    let world = World::new();
    let folder = world.path("mine");
    let ask = || reason(world.models.find(folder.to_str().unwrap()));
    assert_says(&ask(), &["no such folder"]);

    std::fs::create_dir(&folder).unwrap();
    assert_says(&ask(), &["holds no model"]);

    std::fs::write(folder.join("config.json"), "{}").unwrap();
    std::fs::write(folder.join("tokenizer.json"), "{}").unwrap();
    std::fs::write(folder.join("pytorch_model.bin"), "pickle").unwrap();
    assert_says(&ask(), &["only as pytorch_model.bin", "pickle", "weights_only=True", "save_file"]);

    std::fs::remove_file(folder.join("pytorch_model.bin")).unwrap();
    std::fs::write(folder.join("model.safetensors.index.json"), "{}").unwrap();
    assert_says(&ask(), &["split into several files"]);

    std::fs::write(folder.join("model.safetensors"), "x").unwrap();
    std::fs::remove_file(folder.join("tokenizer.json")).unwrap();
    assert_says(&ask(), &["has no tokenizer.json", "AutoTokenizer"]);

    let file = folder.join("model.safetensors");
    assert_says(&reason(world.models.find(file.to_str().unwrap())), &["is a file"]);
}

#[test]
fn find_unknown_name_suggests_the_nearest() {
    let world = World::new();
    assert_says(&reason(world.models.find("tiny1")), &["did you mean 'tiny'?", "neither a folder"]);
    assert_says(&reason(world.obtain_name("nothing-like-it")), &["nor one of tiny"]);
}

#[test]
fn find_unlisted_hub_id_opens_main_or_the_only_snapshot() {
    let world = World::new();
    let repo = world.path("hub/models--some--body");
    let ask = || world.models.find("some/body");
    assert_says(&reason(ask()), &["some/body is not there", "warpseek models pull some/body"]);

    let open = |commit: &str, weights: &[u8]| {
        world.write_to(&repo.join("snapshots").join(commit));
        std::fs::write(repo.join("snapshots").join(commit).join("model.safetensors"), weights)
            .unwrap();
    };
    open("aaa", b"first");
    let found = ask().unwrap();
    assert_eq!((found.name.as_str(), found.revision.as_deref()), ("some/body", Some("aaa")));
    assert_eq!((found.sha256, found.spec), (sha256(b"first"), None));

    open("bbb", b"second");
    assert_says(&reason(ask()), &["2 snapshots and no refs/main"]);

    std::fs::create_dir(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), "bbb\n").unwrap();
    assert_eq!(ask().unwrap().sha256, sha256(b"second"));
}

#[test]
fn stamps_save_reading_until_the_file_changes() {
    let world = World::new();
    let weights = world.path("models/tiny/model.safetensors");
    world.write_to(weights.parent().unwrap());
    world.models.find("tiny").unwrap();

    // Whoever believes this stamp did not read the file.
    let stamps = world.models.sources.stamp_file.clone().unwrap();
    let text = std::fs::read_to_string(&stamps).unwrap();
    assert!(text.contains(&world.weights_sha256()));
    let forged = "f".repeat(64);
    std::fs::write(&stamps, text.replace(&world.weights_sha256(), &forged)).unwrap();
    assert_says(&reason(world.models.find("tiny")), &[&forged]);

    let later = SystemTime::now() + Duration::from_secs(5);
    File::options().write(true).open(&weights).unwrap().set_modified(later).unwrap();
    world.models.find("tiny").unwrap();
    assert!(!std::fs::read_to_string(&stamps).unwrap().contains(&forged));
}

#[test]
fn stamps_garbled_or_unwritable_cost_nothing_but_time() {
    let mut world = World::new();
    world.write_to(&world.path("models/tiny"));
    let stamps = world.models.sources.stamp_file.clone().unwrap();
    std::fs::create_dir_all(stamps.parent().unwrap()).unwrap();
    for garbage in ["", "{\"version\": 1", "{\"version\": 99, \"files\": {}}", "\u{0}\u{1}"] {
        std::fs::write(&stamps, garbage).unwrap();
        world.models.find("tiny").unwrap();
        let text = std::fs::read_to_string(&stamps).unwrap();
        assert!(text.contains(&world.weights_sha256()), "not rewritten over {garbage:?}");
    }
    // A folder of that name, and a file where the folder should be.
    for blocked in [world.path("models"), world.path("models/tiny/config.json/stamps")] {
        world.models.sources.stamp_file = Some(blocked);
        world.models.find("tiny").unwrap();
    }
}

#[test]
fn stamps_of_two_processes_are_both_kept() {
    let world = World::new();
    world.write_to(&world.path("models/tiny"));
    world.write_to(&world.path("mine"));
    let stamps = world.models.sources.stamp_file.clone().unwrap();
    let first = warpseek::model::checksum::Stamps::open(Some(&stamps));
    let second = warpseek::model::checksum::Stamps::open(Some(&stamps));
    first.sha256(&world.path("models/tiny/config.json")).unwrap();
    second.sha256(&world.path("mine/config.json")).unwrap();
    let text = std::fs::read_to_string(&stamps).unwrap();
    assert_eq!(text.matches("config.json").count(), 2);
}

#[test]
fn verify_reads_anew_what_a_stamp_calls_good() {
    let world = World::new();
    let folder = world.path("models/tiny");
    world.write_to(&folder);
    world.write_to(&world.snapshot());
    world.models.find("tiny").unwrap();

    // Damage that leaves size, time and inode as they were.
    let weights = folder.join("model.safetensors");
    let modified = weights.metadata().unwrap().modified().unwrap();
    let mut bytes = world.bytes("model.safetensors").to_vec();
    bytes[0] ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    File::options().write(true).open(&weights).unwrap().set_modified(modified).unwrap();
    assert_eq!(world.models.find("tiny").unwrap().path, folder);

    let reports = world.models.verify("tiny").unwrap();
    let sound: Vec<_> = reports.iter().map(|copy| (copy.origin, copy.is_sound())).collect();
    assert_eq!(sound, [(Origin::ModelsDir, false), (Origin::HubCache, true)]);
    let file = &reports[0].files[2];
    assert_eq!(file.got, Some(sha256(&bytes)));
    assert_eq!(file.expected, Some(world.weights_sha256()));

    // From now on the damage is known.
    assert_eq!(world.models.find("tiny").unwrap().origin, Origin::HubCache);
}

#[test]
fn verify_without_a_copy_is_unavailable_and_of_a_folder_gives_hashes() {
    let world = World::new();
    assert_eq!(world.models.verify("tiny").unwrap_err().exit_code(), 3);

    let folder = world.path("mine");
    world.write_to(&folder);
    std::fs::write(folder.join("model.safetensors"), b"own").unwrap();
    let reports = world.models.verify(folder.to_str().unwrap()).unwrap();
    assert!(reports[0].is_sound());
    assert_eq!(reports[0].files[2].got, Some(sha256(b"own")));
}

#[test]
fn status_tells_absent_present_and_broken() {
    let world = World::new();
    let status = || world.models.status().remove(0);
    let absent = status();
    assert_eq!((absent.spec.license.as_str(), absent.bytes), ("MIT", 43_018));
    assert_eq!((absent.folder, absent.problems), (None, vec![]));

    world.write_to(&world.path("models/tiny"));
    assert_eq!(status().folder.unwrap().path, world.path("models/tiny"));

    std::fs::write(world.path("models/tiny/config.json"), "{}").unwrap();
    let broken = status();
    assert_eq!(broken.folder, None);
    assert_says(&broken.problems[0], &["config.json has 2 bytes, expected 18"]);

    // A second, sound copy is used, and the damage is still told.
    world.write_to(&world.snapshot());
    let both = status();
    assert_eq!(both.folder.unwrap().path, world.snapshot());
    assert_eq!(both.problems, broken.problems);
}
