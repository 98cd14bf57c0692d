//! A full disk under the embedded store: a clear end, and nothing lost once there is room.
//!
//! The disk is a tmpfs in a mount namespace of its own, which goes with the last process in it.
//! Where no namespace can be had, a small shared-memory disk serves, as containers have it.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use forebay_tests::{Load, PIPELINE, Pipeline, Stage, Turn, cannot_run, wait_until};
use model_server::process::Reason;

/// Set where a test runs in its namespace: the disk's folder.
const DISK: &str = "FOREBAY_TEST_DISK";
const DISK_BYTES: u64 = 96 << 20;
/// A shared-memory disk of more than this is not filled: memory is everyone's.
const SHARED_BYTES_MAX: u64 = 256 << 20;
const IMAGES: u64 = 6000;
/// What the disk takes before it is full, in turns, so that it is full in many places; the images
/// need several times as much.
const ROOMS: [u64; 4] = [1 << 20, 2 << 20, 3 << 20, 5 << 20];

/// The ways into a namespace of one's own: as anyone, and as root.
const NAMESPACES: [&[&str]; 2] = [&["--user", "--map-root-user", "--mount"], &["--mount"]];

/// A disk that is filled up to some room, until it is dropped.
struct Ballast {
    path: PathBuf,
}

impl Ballast {
    fn leaving(disk: &Path, room: u64) -> Self {
        let path = disk.join("ballast");
        let mut file = File::create(&path).unwrap();
        // Until nothing fits any more; then the room is made.
        while file.write_all(&[7; 4096]).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length.checked_sub(room).expect("the disk is larger than the room")).unwrap();
        Self { path }
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // The disk may be gone before.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A folder on a small disk of its own, whatever this machine lets us have.
fn shared_memory() -> Option<PathBuf> {
    let disk = Path::new("/dev/shm");
    let output = Command::new("df").args(["--block-size=1", "--output=size"]).arg(disk).output();
    let text = String::from_utf8(output.ok()?.stdout).ok()?;
    let size: u64 = text.lines().nth(1)?.trim().parse().ok()?;
    (size <= SHARED_BYTES_MAX).then(|| disk.to_owned())
}

/// Runs `play` with the folder of a small disk: this test starts itself again in a namespace,
/// and plays there.
fn on_a_small_disk(test: &str, play: fn(&Path)) {
    if let Some(disk) = std::env::var_os(DISK) {
        let disk = PathBuf::from(disk);
        mount(&disk);
        return play(&disk);
    }
    let folder = tempfile::tempdir().unwrap();
    let can_mount = |flags: &&&[&str]| {
        let mut probe = Command::new("unshare");
        probe.args(**flags).args(["mount", "-t", "tmpfs", "tmpfs"]).arg(folder.path());
        probe.output().is_ok_and(|output| output.status.success())
    };
    if let Some(flags) = NAMESPACES.iter().find(can_mount) {
        let mut inside = Command::new("unshare");
        inside.args(*flags).arg(std::env::current_exe().unwrap());
        inside.args(["--exact", test, "--nocapture"]).env(DISK, folder.path());
        let output = inside.output().unwrap();
        print!("{}", String::from_utf8_lossy(&output.stdout));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "it failed in its namespace: {errors}");
    } else if let Some(disk) = shared_memory() {
        let folder = tempfile::tempdir_in(disk).unwrap();
        play(folder.path());
    } else {
        cannot_run(
            "a small disk needs root, or user namespaces for everyone \
             (sysctl kernel.apparmor_restrict_unprivileged_userns=0), or a small /dev/shm",
        );
    }
}

fn mount(disk: &Path) {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"]).arg(disk);
    assert!(mount.status().unwrap().success(), "the disk cannot be mounted");
}

/// A stage with its data on the disk; logs are elsewhere, so that they tell of its end.
fn stage(disk: &Path) -> Stage {
    Stage::embedded(|ini| {
        ini.set("embedded", "directory", disk.join("broker").display());
        ini.set("app2", "database", disk.join("predictions.db").display());
    })
}

/// Whether a program ended, which it may only because of the disk.
fn has_ended_full(pipeline: &mut Pipeline, program: &str) -> bool {
    let running = pipeline.program(program);
    let Some(status) = running.ended() else { return false };
    if program == "app1" && status.success() {
        return false;
    }
    let log = running.log();
    let last = log.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_default();
    assert_eq!(status.code(), Some(Reason::StorageFull as i32), "{program}: {log}");
    assert!(last.contains("full"), "{program} does not say what is wrong: {log}");
    assert!(!log.contains("panicked"), "{program}: {log}");
    true
}

fn a_disk_runs_full(disk: &Path) {
    let _turn = Turn::take();
    for room in ROOMS {
        let folder = tempfile::tempdir_in(disk).unwrap();
        runs_full(folder.path(), room);
    }
}

fn runs_full(disk: &Path, room: u64) {
    let stage = stage(disk);
    let ballast = Ballast::leaving(disk, room);
    let mut pipeline = Pipeline::start(&stage, Load { images: IMAGES, batch: 16, rate: None });
    wait_until("the first program to find the disk full", || {
        PIPELINE.iter().any(|program| has_ended_full(&mut pipeline, program)).then_some(())
    });
    assert!(pipeline.progress("app2") < IMAGES, "no work was left");
    drop(ballast);
    let mut ends = 0;
    wait_until("the rest", || {
        for program in PIPELINE {
            if has_ended_full(&mut pipeline, program) {
                ends += 1;
                pipeline.restart(program);
            }
        }
        (pipeline.progress("app2") == IMAGES).then_some(())
    });
    println!("{ends} ends by a full disk with room for {room}, {:?}", pipeline.finish());
}

fn a_disk_is_full(disk: &Path) {
    // The store is made while there is room, then there is none.
    let stage = stage(disk);
    let _ballast = Ballast::leaving(disk, 0);
    let load = Load { images: 100, batch: 16, rate: None };
    let mut pipeline = Pipeline::start(&stage, load);
    wait_until("all to find the disk full", || {
        PIPELINE.iter().all(|program| has_ended_full(&mut pipeline, program)).then_some(())
    });
}

#[test]
fn what_a_full_disk_ended_goes_on_once_there_is_room() {
    let test = "disk_full::what_a_full_disk_ended_goes_on_once_there_is_room";
    on_a_small_disk(test, a_disk_runs_full);
}

#[test]
fn a_disk_that_is_full_ends_every_program_at_its_start() {
    let test = "disk_full::a_disk_that_is_full_ends_every_program_at_its_start";
    on_a_small_disk(test, a_disk_is_full);
}
