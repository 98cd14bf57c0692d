use model_server::prediction::{Input, ModelRef, Outputs, Prediction, Source, Times};

use super::*;
use crate::database::Database;

/// A row to be: its label, its truth, and its latency in milliseconds.
type Row<'a> = (&'a str, Option<&'a str>, i64);

/// A database in which image `i` was published at second `i`.
fn database(rows: &[Row]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.db");
    let payloads: Vec<_> = rows.iter().enumerate().map(|(at, row)| payload(at, row)).collect();
    Database::open(&path).unwrap().persist(&payloads).unwrap();
    let connection = Connection::open(&path).unwrap();
    let persisted = "UPDATE predictions SET persisted_us = published_us + ?2 * 1000 WHERE id = ?1";
    for (at, (_, _, latency)) in rows.iter().enumerate() {
        connection.execute(persisted, (at.to_string(), latency)).unwrap();
    }
    directory
}

fn payload(at: usize, (label, truth, _): &Row) -> Vec<u8> {
    let prediction = Prediction {
        id: at.to_string(),
        model: ModelRef { name: "m".into(), version: "1".into(), digest: "d".into() },
        source: Source { topic: "images".into(), partition: 0, offset: at as u64 },
        input: Input {
            digest: "i".into(),
            label: truth.map(str::to_owned),
            published_us: (at as i64 + 1) * 1_000_000,
        },
        outputs: Outputs { label: (*label).into(), probability: 1.0, probabilities: vec![1.0] },
        times: Times { queued_us: 1000 * at as u64, computing_us: 2500, total_us: 0 },
    };
    serde_json::to_vec(&prediction).unwrap()
}

fn report(directory: &tempfile::TempDir) -> Report {
    Report::read(&directory.path().join("p.db")).unwrap()
}

#[test]
fn figures_are_those_of_the_rows() {
    let directory = database(&[
        ("7", Some("7"), 100),
        ("7", Some("1"), 400),
        ("1", Some("1"), 300),
        ("7", None, 200),
    ]);
    let label = |label: &str, predicted, truth, correct, accuracy| LabelCount {
        label: label.to_owned(),
        predicted,
        truth,
        correct,
        accuracy: Some(accuracy),
    };
    let expected = Report {
        persisted: 4,
        duplicates: 0,
        accuracy: Some(2.0 / 3.0),
        // From second 1 to second 4.2.
        images_per_second: 4.0 / 3.2,
        latency_ms: Latency { p50: 200.0, p90: 400.0, p99: 400.0, max: 400.0 },
        queued_ms: 1.5,
        computing_ms: 2.5,
        labels: vec![label("1", 1, 2, 1, 0.5), label("7", 3, 1, 1, 1.0)],
    };
    assert_eq!(report(&directory), expected);
}

#[test]
fn percentiles_are_values_that_occurred() {
    let rows: Vec<_> = (1..=1000).rev().map(|latency| ("1", None, latency)).collect();
    let latency = report(&database(&rows)).latency_ms;
    assert_eq!(latency, Latency { p50: 500.0, p90: 900.0, p99: 990.0, max: 1000.0 });
    let cases = [(&[][..], 0), (&[5], 5), (&[5, 6], 5), (&[5, 6, 7], 6)];
    for (sorted, median) in cases {
        assert_eq!(percentile(sorted, 50), median);
    }
}

#[test]
fn repeats_are_counted_and_a_clock_that_went_back_counts_as_no_time() {
    let row = ("1", None, -50);
    let directory = database(&[row]);
    let mut database = Database::open(&directory.path().join("p.db")).unwrap();
    database.persist(&[payload(0, &row), payload(0, &row)]).unwrap();
    // The database is open for writing meanwhile.
    let report = report(&directory);
    assert_eq!((report.persisted, report.duplicates), (1, 2));
    assert_eq!((report.latency_ms.max, report.images_per_second), (0.0, 0.0));
    assert_eq!(report.accuracy, None);
}

#[test]
fn an_empty_database_gives_zeros_and_dashes() {
    let directory = database(&[]);
    assert_eq!(report(&directory), Report::default());
    let expected = "\
label  predicted      truth    correct   accuracy
all            0          -          -          -

persisted   0
repeats     0
accuracy    -
throughput  -
latency     p50 -, p90 -, p99 -, max -
mean        queued -, computing -";
    assert_eq!(report(&directory).to_string(), expected);
    // A file of no bytes is what SQLite makes first.
    std::fs::write(directory.path().join("none.db"), "").unwrap();
    assert_eq!(Report::read(&directory.path().join("none.db")).unwrap(), Report::default());
}

#[test]
fn the_table_is_aligned_and_harmless() {
    let directory = database(&[("Ankle boot", Some("Ankle boot"), 1), ("\x1b[31mé\n", None, 3)]);
    let expected = "\
label          predicted      truth    correct   accuracy
\\u{1b}[31mé\\n          1          -          -          -
Ankle boot             1          1          1   100.00 %
all                    2          1          1   100.00 %

persisted   2
repeats     0
accuracy    100.00 %
throughput  2.0 images/s
latency     p50 1.0 ms, p90 3.0 ms, p99 3.0 ms, max 3.0 ms
mean        queued 0.5 ms, computing 2.5 ms";
    assert_eq!(report(&directory).to_string(), expected);
}

#[test]
fn a_missing_or_foreign_database_is_told_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let foreign = directory.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let missing = directory.path().join("missing.db");
    let paths = [
        (&missing, "there is no database"),
        (&foreign, "belongs to another program"),
        (&directory.path().to_owned(), "is a directory"),
    ];
    for (path, part) in paths {
        let failure = Report::read(path).unwrap_err();
        assert_eq!(failure.reason(), Reason::Start);
        let told = failure.to_string();
        assert!(told.contains(part) && told.contains(&format!("{path:?}")), "{told}");
    }
    assert!(!missing.exists());
}
