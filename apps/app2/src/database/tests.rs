use std::fs;

use model_server::prediction::{Input, ModelRef, Outputs, Source, Times};

use super::*;

fn prediction(id: &str) -> Prediction {
    Prediction {
        id: id.to_owned(),
        model: ModelRef {
            name: "cnn".to_owned(),
            version: "1".to_owned(),
            digest: "d1".to_owned(),
        },
        source: Source { topic: "images".to_owned(), partition: 3, offset: 42 },
        input: Input { digest: "i1".to_owned(), label: None, published_us: 1 },
        outputs: Outputs {
            label: "7".to_owned(),
            probability: 0.75,
            probabilities: vec![0.25, 0.75],
        },
        times: Times { queued_us: 5, computing_us: 6, total_us: 11 },
    }
}

fn json(prediction: &Prediction) -> Vec<u8> {
    serde_json::to_vec(prediction).unwrap()
}

fn count(database: &Database) -> i64 {
    let count = "SELECT count(*) FROM predictions";
    database.connection.query_row(count, [], |row| row.get(0)).unwrap()
}

fn repeats(database: &Database) -> i64 {
    let sql = "SELECT value FROM counters WHERE name = 'repeats'";
    database.connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn a_row_holds_everything_of_its_prediction() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = Database::open(&directory.path().join("a/b/p.db")).unwrap();
    let before = Timestamp::now().as_micros();
    let labelled = Prediction {
        input: Input { label: Some("7".to_owned()), ..prediction("a").input },
        ..prediction("a")
    };
    let verdicts = database.persist(&[json(&labelled), json(&prediction("b"))]).unwrap();
    assert_eq!(verdicts, [Verdict::Persisted, Verdict::Persisted]);
    let row: String = database
        .connection
        .query_row(
            "SELECT concat_ws('|', id, model, version, digest, topic, partition, offset,
                 input_digest, truth, published_us, label, probability, probabilities, queued_us,
                 computing_us, total_us) FROM predictions WHERE id = 'a'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(row, "a|cnn|1|d1|images|3|42|i1|7|1|7|0.75|[0.25,0.75]|5|6|11");
    let (truth, persisted): (Option<String>, i64) = database
        .connection
        .query_row("SELECT truth, persisted_us FROM predictions WHERE id = 'b'", [], |row| {
            row.try_into()
        })
        .unwrap();
    assert_eq!(truth, None);
    assert!((before..=Timestamp::now().as_micros()).contains(&persisted));
}

#[test]
fn the_same_input_again_is_counted_and_another_one_is_a_conflict() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.db");
    let mut database = Database::open(&path).unwrap();
    let first = prediction("a");
    let other_model =
        Prediction { model: ModelRef { name: "other".to_owned(), ..first.model.clone() }, ..first };
    let first = prediction("a");
    let other_input =
        Prediction { input: Input { digest: "i2".to_owned(), ..first.input.clone() }, ..first };
    let first = json(&prediction("a"));
    // Also within one batch.
    let batch = [first.clone(), first.clone(), json(&other_model), json(&other_input)];
    let verdicts = database.persist(&batch).unwrap();
    let [Verdict::Persisted, Verdict::Repeated, Verdict::Persisted, Verdict::Refused(reason)] =
        &verdicts[..]
    else {
        panic!("{verdicts:?}")
    };
    for part in ["conflict", "\"a\"", "\"cnn\"", "\"i1\"", "\"i2\""] {
        assert!(reason.contains(part), "{reason}: no {part}");
    }
    drop(database);
    let mut database = Database::open(&path).unwrap();
    assert_eq!(database.persist(&[first]).unwrap(), [Verdict::Repeated]);
    assert_eq!((count(&database), repeats(&database)), (2, 2));
}

#[test]
fn what_is_no_prediction_is_refused_with_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = Database::open(&directory.path().join("p.db")).unwrap();
    let whole = String::from_utf8(json(&prediction("a"))).unwrap();
    let cases = [
        (String::new(), "EOF"),
        ("{}".to_owned(), "missing field `id`"),
        (whole[..whole.len() - 1].to_owned(), "EOF"),
        (whole.replace("\"label\":\"7\"", "\"label\":7"), "expected a string"),
        (whole.replace("\"offset\":42", "\"offset\":-1"), "expected u64"),
        (whole.replace("\"offset\":42", "\"offset\":18446744073709551615"), "too large"),
        (whole.replace("\"id\":\"a\"", "\"id\":\"\""), "the id has 0 bytes, expected 1 to 256"),
        (whole.replace("cnn", &"n".repeat(257)), "the model's name has 257 bytes"),
    ];
    for (payload, part) in cases {
        let verdicts = database.persist(&[payload.as_bytes(), whole.as_bytes()]).unwrap();
        let Verdict::Refused(reason) = &verdicts[0] else { panic!("{payload}: {verdicts:?}") };
        assert!(reason.starts_with("no prediction: ") && reason.contains(part), "{reason}");
        assert!(!matches!(verdicts[1], Verdict::Refused(_)));
    }
    assert_eq!(count(&database), 1);
}

#[test]
fn on_a_full_disk_nothing_of_a_batch_is_persisted() {
    let directory = tempfile::tempdir().unwrap();
    let mut database = Database::open(&directory.path().join("p.db")).unwrap();
    database.persist(&[json(&prediction("first"))]).unwrap();
    // SQLite answers as on a full disk where a file may not grow.
    database.connection.query_row("PRAGMA max_page_count = 20", [], |_| Ok(())).unwrap();
    let batch: Vec<_> = (0..1000).map(|id| json(&prediction(&format!("{id}")))).collect();
    let failure = database.persist(&batch).unwrap_err();
    assert_eq!(failure.reason(), Reason::StorageFull, "{failure}");
    assert!(failure.to_string().contains("p.db"), "{failure}");
    assert_eq!(count(&database), 1);
    database.connection.query_row("PRAGMA max_page_count = 100000", [], |_| Ok(())).unwrap();
    database.persist(&batch).unwrap();
    assert_eq!(count(&database), 1001);
}

#[test]
fn a_path_that_cannot_be_a_database_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x".repeat(5000)).unwrap();
    let paths = [
        (directory.path().to_owned(), "is a directory"),
        (file.join("p.db"), "cannot make the directory"),
        (file.clone(), "not a database"),
    ];
    for (path, part) in paths {
        let failure = Database::open(&path).unwrap_err();
        assert_eq!(failure.reason(), Reason::Start, "{failure}");
        let told = failure.to_string();
        assert!(told.contains(part) && told.contains(&format!("{path:?}")), "{told}");
    }
    assert_eq!(fs::read(&file).unwrap().len(), 5000);
}

#[test]
fn another_programs_database_is_refused_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let ours = "PRAGMA application_id = 1179599449;";
    let cases = [
        ("CREATE TABLE books (title)".to_owned(), "another program"),
        ("PRAGMA application_id = 77".to_owned(), "another program"),
        (format!("{ours} PRAGMA user_version = 2; CREATE TABLE predictions (id)"), "format 2"),
        (format!("{ours} PRAGMA user_version = 1; CREATE TABLE predictions (id)"), "counters"),
    ];
    for (index, (script, part)) in cases.iter().enumerate() {
        let path = directory.path().join(format!("{index}.db"));
        Connection::open(&path).unwrap().execute_batch(script).unwrap();
        let before = fs::read(&path).unwrap();
        let failure = Database::open(&path).unwrap_err();
        assert_eq!(failure.reason(), Reason::Start);
        assert!(failure.to_string().contains(part), "{failure}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
