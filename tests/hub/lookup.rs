//! Lookup on this machine: order, damage, explicit folders, cached checksums.

use std::fs::File;
use std::time::SystemTime;

use warpseek_hub::ModelOrigin;

use super::*;

#[test]
fn find_with_nothing_there_lists_every_place_and_the_remedy() {
    let world = World::new();
    let nothing = |path: PathBuf| format!("{}: nothing there", path.display());
    assert_says(
        &reason(world.find()),
        &[
            "model 'tiny' is not available",
            &nothing(world.path("models/tiny")),
            &nothing(world.snapshot()),
            "warpseek models pull tiny",
            "config.json, tokenizer.json, model.safetensors",
        ],
    );
}

#[test]
fn find_models_folder_takes_precedence_over_cache() {
    let world = World::new();
    world.write_to(&world.snapshot());
    assert_eq!(world.find().unwrap().origin, ModelOrigin::HubCache);

    world.write_to(&world.path("models/tiny"));
    let found = world.models.find(REPO).unwrap();
    assert_eq!((found.origin, &found.path), (ModelOrigin::ModelsDir, &world.path("models/tiny")));
    assert_eq!(found.warnings, Vec::<String>::new());
    world.assert_complete(&found);
}

#[test]
fn find_damaged_copy_is_skipped_and_named() {
    let world = World::new();
    world.write_to(&world.snapshot());
    world.write_to(&world.path("models/tiny"));
    let damaged = world.path("models/tiny/model.safetensors");
    let mut bytes = world.weights().to_vec();
    bytes[777] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();

    let found = world.find().unwrap();
    assert_eq!(found.origin, ModelOrigin::HubCache);
    let (got, expected) = (sha256(&bytes), world.sha256());
    let flaw = format!("{}: sha256 is {got}, expected {expected}", damaged.display());
    assert_eq!(found.warnings, std::slice::from_ref(&flaw));

    // Without another copy the damage is in the error.
    std::fs::remove_dir_all(world.path("hub")).unwrap();
    assert_says(&reason(world.find()), &[&flaw]);
}

#[test]
fn find_short_or_missing_file_is_named() {
    let world = World::new();
    let folder = world.path("models/tiny");
    world.write_to(&folder);
    let (config, tokenizer) = (folder.join(CONFIG), folder.join(TOKENIZER));
    std::fs::remove_file(&config).unwrap();
    std::fs::write(&tokenizer, "{}").unwrap();
    let missing = format!("{} is missing", config.display());
    let short = format!("{} has 2 bytes, expected 3000", tokenizer.display());
    assert_says(&reason(world.find()), &[&missing, &short]);
}

#[test]
fn find_takes_any_snapshot_whose_files_match() {
    let world = World::new();
    // Another commit of the repository's former name.
    let other = world.path("hub/models--stand-in--tiny-old/snapshots/abc");
    world.write_to(&other);
    let found = world.find().unwrap();
    assert_eq!((&found.path, found.origin), (&other, ModelOrigin::HubCache));

    std::fs::write(other.join(CONFIG), "{}").unwrap();
    assert_says(&reason(world.find()), &[&other.display().to_string()]);
}

#[test]
fn find_explicit_folder_of_a_listed_model_gets_its_entry() {
    let world = World::new();
    let folder = world.path("somewhere");
    world.write_to(&folder);
    let found = world.models.find(folder.to_str().unwrap()).unwrap();
    assert_eq!((found.origin, found.revision.as_deref()), (ModelOrigin::Explicit, Some(COMMIT)));
    assert_eq!(found.spec.unwrap().name, "tiny");
}

#[test]
fn find_explicit_folder_that_is_unlisted_returns_its_hash() {
    let world = World::new();
    // The name of a listed model makes the difference worth a warning.
    let folder = world.path("mine/tiny");
    let find = || world.models.find(folder.to_str().unwrap()).unwrap();
    world.write_to(&folder);
    std::fs::write(folder.join(WEIGHTS), b"other weights").unwrap();
    let found = find();
    assert_eq!(found.sha256, sha256(b"other weights"));
    assert_eq!((&found.spec, &found.revision), (&None, &None));
    assert_eq!(Path::new(&found.name), folder);
    assert_eq!(found.warnings.len(), 1);
    assert_says(&found.warnings[0], &["that of tiny is", &world.sha256()]);

    // The right weights with another tokenizer are not the listed model either.
    world.write_to(&folder);
    std::fs::write(folder.join(TOKENIZER), b"{}").unwrap();
    let found = find();
    assert_eq!(found.spec, None);
    assert_says(&found.warnings[0], &["tokenizer.json has 2 bytes, expected 3000"]);
}

#[test]
fn find_explicit_folder_that_cannot_be_opened_says_why() {
    let world = World::new();
    let folder = world.path("mine");
    let ask = |path: &Path| reason(world.models.find(path.to_str().unwrap()));
    let write = |file: &str| std::fs::write(folder.join(file), "{}").unwrap();
    let remove = |file: &str| std::fs::remove_file(folder.join(file)).unwrap();
    assert_says(&ask(&folder), &["no such folder"]);

    std::fs::create_dir(&folder).unwrap();
    assert_says(&ask(&folder), &["contains no model"]);

    [CONFIG, TOKENIZER, "pytorch_model.bin"].into_iter().for_each(write);
    let says = ["only as pytorch_model.bin", "pickle", "weights_only=True", "save_file"];
    assert_says(&ask(&folder), &says);

    remove("pytorch_model.bin");
    write("model.safetensors.index.json");
    assert_says(&ask(&folder), &["split into several files"]);

    write(WEIGHTS);
    remove(TOKENIZER);
    assert_says(&ask(&folder), &["has no tokenizer.json", "AutoTokenizer"]);
    assert_says(&ask(&folder.join(WEIGHTS)), &["is a file"]);
}

#[test]
fn find_unknown_name_suggests_the_nearest() {
    let world = World::new();
    assert_says(&reason(world.models.find("tiny1")), &["did you mean 'tiny'?", "neither a folder"]);
    let text = reason(world.models.get_or_download("nothing-like-it", &no_progress));
    assert_says(&text, &["nor one of tiny"]);
}

#[test]
fn find_unlisted_hub_id_opens_main_or_the_only_snapshot() {
    let world = World::new();
    let repo = world.path("hub/models--some--body");
    let find = || world.models.find("some/body");
    assert_says(&reason(find()), &["some/body is not there", "warpseek models pull some/body"]);

    let add = |commit: &str, weights: &[u8]| {
        let snapshot = repo.join("snapshots").join(commit);
        world.write_to(&snapshot);
        std::fs::write(snapshot.join(WEIGHTS), weights).unwrap();
    };
    add("aaa", b"first");
    let found = find().unwrap();
    assert_eq!((found.name.as_str(), found.revision.as_deref()), ("some/body", Some("aaa")));
    assert_eq!((found.sha256, found.spec), (sha256(b"first"), None));

    add("bbb", b"second");
    assert_says(&reason(find()), &["2 snapshots and no refs/main"]);

    std::fs::create_dir(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), "bbb\n").unwrap();
    assert_eq!(find().unwrap().sha256, sha256(b"second"));
}

#[test]
fn checksums_are_cached_until_the_file_changes() {
    let world = World::new();
    world.write_to(&world.path("models/tiny"));
    world.find().unwrap();

    // A forged entry that is believed proves that the file was not read.
    let cache = world.path("cache/checksums.json");
    let text = std::fs::read_to_string(&cache).unwrap();
    assert!(text.contains(&world.sha256()));
    let forged = "f".repeat(64);
    std::fs::write(&cache, text.replace(&world.sha256(), &forged)).unwrap();
    assert_says(&reason(world.find()), &[&forged]);

    let later = SystemTime::now() + Duration::from_secs(5);
    let weights = File::options().write(true).open(world.path("models/tiny").join(WEIGHTS));
    weights.unwrap().set_modified(later).unwrap();
    world.find().unwrap();
    assert!(!std::fs::read_to_string(&cache).unwrap().contains(&forged));
}

#[test]
fn checksum_cache_that_is_damaged_or_unwritable_is_no_error() {
    let mut world = World::new();
    world.write_to(&world.path("models/tiny"));
    let cache = world.path("cache/checksums.json");
    std::fs::create_dir_all(cache.parent().unwrap()).unwrap();
    for damaged in ["", "{\"version\": 1", "{\"version\": 99, \"files\": {}}", "\u{0}\u{1}"] {
        std::fs::write(&cache, damaged).unwrap();
        world.find().unwrap();
        let text = std::fs::read_to_string(&cache).unwrap();
        assert!(text.contains(&world.sha256()), "not rewritten over {damaged:?}");
    }
    // A folder of that name, and a file in place of the folder.
    for blocked in [world.path("models"), world.path("models/tiny/config.json/cache")] {
        world.models.sources.checksum_file = Some(blocked);
        world.find().unwrap();
    }
}

#[test]
fn verify_reads_files_whose_cached_checksum_is_correct() {
    let world = World::new();
    let folder = world.path("models/tiny");
    world.write_to(&folder);
    world.write_to(&world.snapshot());
    world.find().unwrap();

    // Damage that keeps size, time and inode.
    let weights = folder.join(WEIGHTS);
    let modified = weights.metadata().unwrap().modified().unwrap();
    let mut bytes = world.weights().to_vec();
    bytes[0] ^= 1;
    std::fs::write(&weights, &bytes).unwrap();
    File::options().write(true).open(&weights).unwrap().set_modified(modified).unwrap();
    assert_eq!(world.find().unwrap().path, folder);

    let reports = world.models.verify("tiny").unwrap();
    let sound: Vec<_> = reports.iter().map(|copy| (copy.origin, copy.is_sound())).collect();
    assert_eq!(sound, [(ModelOrigin::ModelsDir, false), (ModelOrigin::HubCache, true)]);
    let file = &reports[0].files[2];
    assert_eq!((&file.got, &file.expected), (&Some(sha256(&bytes)), &Some(world.sha256())));

    // From now on the damage is known.
    assert_eq!(world.find().unwrap().origin, ModelOrigin::HubCache);
}

#[test]
fn verify_without_a_copy_is_unavailable_and_of_a_folder_gives_hashes() {
    let world = World::new();
    assert_eq!(world.models.verify("tiny").unwrap_err().exit_code(), 3);

    let folder = world.path("mine");
    world.write_to(&folder);
    std::fs::write(folder.join(WEIGHTS), b"own").unwrap();
    let reports = world.models.verify(folder.to_str().unwrap()).unwrap();
    assert!(reports[0].is_sound());
    assert_eq!(reports[0].files[2].got, Some(sha256(b"own")));
}

#[test]
fn status_tells_absent_present_and_damaged() {
    let world = World::new();
    let status = || world.models.status().remove(0);
    let absent = status();
    assert_eq!((absent.spec.license.as_str(), absent.bytes), ("MIT", 43_018));
    assert_eq!((absent.folder, absent.problems), (None, vec![]));

    world.write_to(&world.path("models/tiny"));
    assert_eq!(status().folder.unwrap().path, world.path("models/tiny"));

    std::fs::write(world.path("models/tiny/config.json"), "{}").unwrap();
    let damaged = status();
    assert_eq!(damaged.folder, None);
    assert_says(&damaged.problems[0], &["config.json has 2 bytes, expected 18"]);

    // A second, intact copy is used, and the damage is still reported.
    world.write_to(&world.snapshot());
    let both = status();
    assert_eq!(both.folder.unwrap().path, world.snapshot());
    assert_eq!(both.problems, damaged.problems);
}
