//! What went in against what came out.

use std::collections::{BTreeMap, BTreeSet};

use broker::Topic;
use model_server::prediction::{ID, Prediction};

use crate::stage::{Record, Stage};

/// The ids of each place, read at rest.
#[derive(Debug)]
pub struct Account {
    /// How many different images went in.
    pub images: usize,
    /// How many of them are stored.
    pub persisted: usize,
    /// How many of them are dead letters.
    pub dead_lettered: usize,
    /// How many messages of the images topic repeat an earlier one.
    pub repeats_in: usize,
    /// How many messages of the predictions topic repeat an earlier one.
    pub repeats_out: usize,
    /// How many messages of the predictions topic come from the same place as an earlier one.
    pub repeats_of_sources: usize,
    /// How many dead letters repeat an earlier one.
    pub repeats_dead: usize,
}

/// The ids of a topic's messages, and how many repeat one.
fn ids(records: &[Record]) -> (BTreeSet<String>, usize) {
    let ids: BTreeSet<String> = records.iter().map(|record| record.header(ID).into()).collect();
    let repeats = records.len() - ids.len();
    (ids, repeats)
}

impl Account {
    /// Reads everything, and checks that what went in is stored or a dead letter, once, and that
    /// each key kept its order.
    pub fn check(stage: &Stage) -> Self {
        let topics = &stage.settings.topics;
        let ids_of = |topic: &Topic| ids(&stage.read(topic));
        let (images, repeats_in) = ids_of(&topics.images);
        let (dead, repeats_dead) = ids_of(&topics.dead_letters);
        let predictions = stage.read(&topics.predictions);
        let (_, repeats_out) = ids(&predictions);
        let rows: Vec<String> = stage.rows().into_iter().map(|row| row.id).collect();
        let stored: BTreeSet<String> = rows.iter().cloned().collect();
        assert_eq!(rows.len(), stored.len(), "some ids are stored more than once");
        let both: Vec<_> = stored.intersection(&dead).collect();
        assert!(both.is_empty(), "stored and dead letters: {both:?}");
        let out: BTreeSet<String> = stored.union(&dead).cloned().collect();
        let lost: Vec<_> = images.difference(&out).collect();
        let invented: Vec<_> = out.difference(&images).collect();
        assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), images.len());
        assert!(invented.is_empty(), "{} were never sent: {invented:?}", invented.len());
        let predictions = read(&predictions);
        check_order(&predictions);
        Self {
            images: images.len(),
            persisted: stored.len(),
            dead_lettered: dead.len(),
            repeats_in,
            repeats_out,
            repeats_of_sources: repeats_of_sources(&predictions),
            repeats_dead,
        }
    }
}

fn read(records: &[Record]) -> Vec<(&Record, Prediction)> {
    let read = |record: &Record| serde_json::from_slice(&record.message.payload).unwrap();
    records.iter().map(|record| (record, read(record))).collect()
}

fn repeats_of_sources(predictions: &[(&Record, Prediction)]) -> usize {
    let place = |(_, prediction): &(&Record, Prediction)| {
        (prediction.source.partition, prediction.source.offset)
    };
    predictions.len() - predictions.iter().map(place).collect::<BTreeSet<_>>().len()
}

/// Of each key, what is published for the first time comes in the order of its input.
fn check_order(predictions: &[(&Record, Prediction)]) {
    let mut seen = BTreeSet::new();
    let mut last = BTreeMap::new();
    for (record, prediction) in predictions {
        if !seen.insert(prediction.id.clone()) {
            continue;
        }
        let key = record.message.key.clone();
        let place = (record.position.partition(), prediction.source.partition);
        let offset = prediction.source.offset;
        let before = last.insert(key.clone(), (place, offset));
        let Some((place_before, offset_before)) = before else { continue };
        assert_eq!(place_before, place, "key {key:?} moved between partitions");
        let id = &prediction.id;
        assert!(
            offset_before < offset,
            "key {key:?}: {id}, from offset {offset}, comes behind that from {offset_before}",
        );
    }
}
