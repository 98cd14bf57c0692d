//! Asking before something is done that cannot be undone.

use std::io::{IsTerminal, Write};

use model_server::process::{Failure, Reason};

/// Leave to change things without being asked.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Leave {
    /// Do it without asking
    #[arg(long, short)]
    yes: bool,
}

impl Leave {
    /// Goes on where leave was given, or where the person at the terminal types `answer`.
    pub(crate) fn obtain(&self, question: &str, answer: &str) -> Result<(), Failure> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            let problem = "nothing was changed: nobody can be asked here; add --yes";
            return Err(Failure::new(Reason::Unexpected, problem));
        }
        let failed = |error| Failure::start("cannot ask at the terminal", error);
        let mut stderr = std::io::stderr();
        write!(stderr, "{question} ").and_then(|()| stderr.flush()).map_err(failed)?;
        let mut typed = String::new();
        std::io::stdin().read_line(&mut typed).map_err(failed)?;
        match typed.trim() == answer {
            true => Ok(()),
            false => Err(Failure::new(Reason::Unexpected, "nothing was changed")),
        }
    }
}
