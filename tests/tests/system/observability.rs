//! What the programs show of themselves, and how they bear faults that are made on purpose.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use broker::layers::trace::Context;
use forebay_tests::{Account, PIPELINE, Record, Running, Stage, Turn, command, scale, wait_until};
use model_server::prediction::ID;

const ADMIN: [&str; 2] = ["--admin-address", "127.0.0.1:0"];

/// Where a program's admin endpoint listens, from its log.
fn admin_address(running: &mut Running) -> String {
    wait_until("the admin endpoint", || {
        running.check_alive();
        let log = running.log();
        let line = log.lines().find(|line| line.contains("the admin endpoint listens"))?;
        Some(line.split_once("address=")?.1.trim().to_owned())
    })
}

/// The status and the body of a GET.
fn ask(address: &str, path: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer)
}

/// The trace of each id.
fn traces(records: &[Record]) -> BTreeMap<String, String> {
    let trace = |record: &Record| {
        let context = Context::of(&record.message).expect("every message has a context");
        (record.header(ID).to_owned(), context.trace_id())
    };
    records.iter().map(trace).collect()
}

#[test]
fn a_prediction_continues_the_trace_of_its_image_and_programs_show_their_health() {
    let _turn = Turn::take();
    let stage = Stage::embedded(|ini| {
        ini.set("trace", "start", true);
    });
    let mut servers = ["model_server_sub", "model_server_pub", "app2"]
        .map(|program| stage.start_with(program, &ADMIN));
    let addresses = servers.each_mut().map(admin_address);
    for address in &addresses {
        wait_until("readiness", || (ask(address, "/health/ready").0 == 200).then_some(()));
        assert_eq!(ask(address, "/health/live").0, 200);
    }
    let mut app1 = stage.start_with("app1", &["--run-id", "run", "--samples", "100"]);
    assert!(app1.wait().success(), "{}", app1.log());
    wait_until("the predictions", || {
        servers.iter_mut().for_each(Running::check_alive);
        (stage.row_count() == 100).then_some(())
    });
    let topics = &stage.settings.topics;
    let (images, predictions) = (stage.read(&topics.images), stage.read(&topics.predictions));
    let images = traces(&images);
    assert_eq!(images.len(), 100);
    assert_eq!(images, traces(&predictions));

    let (_, shown) = ask(&addresses[0], "/metrics");
    let received = "forebay_received_messages_total{backend=\"embedded\",topic=\"images\",\
                    group=\"model-server\"} 100";
    assert!(shown.contains(received), "{shown}");
    assert!(shown.contains("forebay_lag_messages{"), "{shown}");
    for running in &mut servers {
        assert!(running.terminate().success(), "{}", running.log());
    }
}

#[test]
fn a_pipeline_bears_faults_that_are_made_on_purpose() {
    let _turn = Turn::take();
    let images = 300 * scale();
    // The test itself looks on without faults.
    let stage = Stage::embedded(|_| {});
    let mut ini = Stage::ini(stage.directory());
    for (key, rate) in [
        ("seed", 7.0),
        ("not_written", 0.05),
        ("unknown", 0.05),
        ("duplicate", 0.05),
        ("disconnect", 0.1),
        ("delay", 0.1),
    ] {
        ini.set("chaos", key, rate);
    }
    ini.set("chaos", "delay_max", "5ms");
    let config = stage.directory().join("chaos.ini");
    std::fs::write(&config, ini.to_string()).unwrap();
    let count = images.to_string();
    let mut running = PIPELINE.map(|program| {
        let mut command = command(program);
        command.arg("--config").arg(&config);
        if program == "app1" {
            command.args(["--run-id", "run", "--batch", "8", "--samples", &count]);
        }
        Running::start(command, program, stage.directory())
    });
    let [app1, servers @ ..] = &mut running;
    assert!(app1.wait().success(), "{}", app1.log());
    assert!(app1.log().contains("CHAOS IS ON"), "{}", app1.log());
    wait_until("the predictions", || {
        servers.iter_mut().for_each(Running::check_alive);
        (stage.row_count() == images as u64).then_some(())
    });
    for running in servers {
        assert!(running.terminate().success(), "{}", running.log());
    }
    let account = Account::check(&stage);
    assert_eq!((account.images, account.persisted), (images, images), "{account:?}");
    assert!(account.repeats_in > 0, "nothing was doubled: {account:?}");
}
