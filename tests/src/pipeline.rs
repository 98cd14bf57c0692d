//! The programs together.

use std::collections::{BTreeMap, BTreeSet};

use broker::Message;
use model_server::prediction::ID;

use crate::account::Account;
use crate::program::Running;
use crate::stage::Stage;
use crate::waiting::wait_until;
use crate::{EXACTLY_ONCE, PIPELINE, mnist};

/// Images that a run of app1 publishes, fixed so that it may be started again and again.
#[derive(Debug, Clone)]
pub struct Load {
    /// How many.
    pub images: u64,
    /// The most that are published at once.
    pub batch: u64,
    /// How many a second, where not as many as possible.
    pub rate: Option<u64>,
}

/// The programs on a stage, each of which may be ended and started again.
pub struct Pipeline<'a> {
    stage: &'a Stage,
    load: Load,
    running: BTreeMap<&'static str, Running>,
    broken: u64,
}

impl<'a> Pipeline<'a> {
    /// Starts all that have work.
    pub fn start(stage: &'a Stage, load: Load) -> Self {
        let mut pipeline = Self { stage, load, running: BTreeMap::new(), broken: 0 };
        pipeline.programs().iter().for_each(|program| pipeline.restart(program));
        pipeline
    }

    /// The programs that have work, app1 first.
    pub fn programs(&self) -> &'static [&'static str] {
        if self.stage.settings.model.exactly_once { &EXACTLY_ONCE } else { &PIPELINE }
    }

    /// Starts a program that ended, or that never ran.
    pub fn restart(&mut self, program: &'static str) {
        let arguments = if program == "app1" { self.app1() } else { Vec::new() };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let started = self.stage.start_with(program, &arguments);
        self.running.insert(program, started);
    }

    fn app1(&self) -> Vec<String> {
        let Load { images, batch, rate } = self.load;
        let resume = self.stage.resume_file();
        let mut arguments = ["--run-id", "run", "--resume"].map(str::to_owned).to_vec();
        arguments.push(resume.display().to_string());
        arguments.extend(["--count".into(), images.to_string()]);
        arguments.extend(["--batch".into(), batch.to_string()]);
        if let Some(rate) = rate {
            arguments.extend(["--rate".into(), rate.to_string()]);
        }
        match mnist() {
            Some(folder) => {
                let file = folder.join("t10k-images-idx3-ubyte.gz");
                arguments.extend(["--loop".into(), file.display().to_string()]);
            }
            None => arguments.extend(["--samples".into(), images.to_string()]),
        }
        arguments
    }

    /// How many images the load has.
    pub fn images(&self) -> u64 {
        self.load.images
    }

    /// Adds images to the load, once app1 has ended.
    fn extend(&mut self, images: u64) {
        self.load.images += images;
        self.restart("app1");
    }

    /// Makes sure that app1 has images to publish: where it has ended, it gets more.
    pub fn ensure_work(&mut self, images: u64) {
        if self.program("app1").ended().is_some() {
            self.extend(images);
        }
    }

    /// One of the programs.
    pub fn program(&mut self, program: &str) -> &mut Running {
        self.running.get_mut(program).expect("all were started")
    }

    /// How far a program got, in images; the end is that of the load.
    pub fn progress(&self, program: &str) -> u64 {
        let (topics, group) = (&self.stage.settings.topics, &self.stage.settings.model.group);
        match program {
            "app1" => self.stage.published(&topics.images),
            "model_server_sub" => self.stage.settled(&topics.images, group.as_str()),
            "model_server_pub" => self.stage.published(&topics.predictions),
            _ => self.stage.row_count(),
        }
    }

    /// Publishes something that is no image, with a key of the images.
    pub fn publish_broken(&mut self) {
        let index = self.broken;
        self.broken += 1;
        let message = Message::new(format!("no image {index}"))
            .with_key(format!("key-{}", index % 16))
            .with_header(ID, format!("broken-{index}"));
        self.stage.publish(vec![message]);
    }

    /// Waits until a program got as far as that; no other may end before.
    pub fn wait_for(&mut self, program: &str, far: u64) {
        wait_until(&format!("{program} at {far}"), || {
            self.check_alive();
            (self.progress(program) >= far).then_some(())
        });
    }

    /// Fails where a program ended that nobody ended; app1 may, once it has published all.
    pub fn check_alive(&mut self) {
        for &program in self.programs() {
            let Some(status) = self.program(program).ended() else { continue };
            assert!(program == "app1" && status.success(), "{program} ended with {status}");
        }
    }

    /// Waits until everything is through, ends all programs, and draws up the account.
    pub fn finish(mut self) -> Account {
        self.wait_for_rest();
        let app1 = self.program("app1").wait();
        assert!(app1.success(), "app1 ended with {app1}");
        for program in &self.programs()[1..] {
            let status = self.program(program).terminate();
            assert!(status.success(), "{program} ended with {status}");
        }
        let account = Account::check(self.stage);
        let sent = (self.load.images + self.broken) as usize;
        assert_eq!(account.images, sent, "app1 did not publish all images");
        assert_eq!(account.dead_lettered, self.broken as usize);
        account
    }

    fn wait_for_rest(&mut self) {
        let stage = self.stage;
        // Progress is what must not end, not time: the limit of waiting begins anew with it.
        let mut rows = stage.row_count();
        while rows < self.load.images {
            rows = wait_until(&format!("more than {rows} rows"), || {
                self.check_alive();
                Some(stage.row_count()).filter(|count| *count > rows)
            });
        }
        wait_until("the dead letters", || {
            let letters = stage.read(&stage.settings.topics.dead_letters);
            let ids: BTreeSet<&str> = letters.iter().map(|letter| letter.header(ID)).collect();
            (ids.len() as u64 >= self.broken).then_some(())
        });
    }
}
