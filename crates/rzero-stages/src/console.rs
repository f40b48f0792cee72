//! All that a person or a scheduler sees: log and progress on stderr, products on stdout, errors with their hints.
//!
//! Nothing else in the project prints. On a terminal progress is a bar; elsewhere it is a log line now and then; under a batch
//! scheduler (`SLURM_JOB_ID`, or `RZERO_LOG=json`) the log is JSON.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// What a person wants to know.
    Normal,
    /// Everything.
    Verbose,
}

/// Starts the log: at the level that was asked for, and where none was, as RUST_LOG says. Called once by each binary; later calls
/// change nothing.
pub fn start_log(verbosity: Verbosity) {
    let level = match verbosity {
        Verbosity::Quiet => "warn",
        Verbosity::Normal => "info",
        Verbosity::Verbose => "debug",
    };
    let from_environment = (verbosity == Verbosity::Normal).then(|| EnvFilter::try_from_default_env().ok()).flatten();
    let filter = from_environment.unwrap_or_else(|| EnvFilter::new(level));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(BesideBars).with_target(verbosity == Verbosity::Verbose);
    let is_json = match std::env::var("RZERO_LOG") {
        Ok(form) => form == "json",
        Err(_) => std::env::var_os("SLURM_JOB_ID").is_some(),
    };
    let started = if is_json { log.json().try_init() } else { log.compact().with_ansi(io::stderr().is_terminal()).try_init() };
    // A log that is running already serves as well.
    started.ok();
}

/// Prints a line of the product, such as the manifest's path, to stdout. A reader that went away is no error.
pub fn print_product(line: impl std::fmt::Display) {
    BARS.suspend(|| writeln!(io::stdout(), "{line}").ok());
}

/// Prints a line that a person should see to stderr, such as a headline figure; not where only warnings and errors are wanted.
pub fn print_note(line: impl std::fmt::Display) {
    if tracing::enabled!(tracing::Level::INFO) {
        BARS.suspend(|| writeln!(io::stderr(), "{line}").ok());
    }
}

/// Prints an error: what failed, every cause, what to do.
pub fn print_error(error: &anyhow::Error, hints: &[String]) {
    let mut text = format!("error: {error}\n");
    let mut above = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Errors that carry their source in their own text are not said twice.
        if !above.contains(&cause) {
            text.push_str(&format!("  caused by: {cause}\n"));
        }
        above = cause;
    }
    for hint in hints {
        text.push_str(&format!("hint: {hint}\n"));
    }
    BARS.suspend(|| io::stderr().write_all(text.as_bytes()).ok());
}

/// Prints what a panic says; the process then ends with exit code 1.
pub(crate) fn print_panic(panic: &PanicHookInfo<'_>) {
    // A damaged file that trips the decoder is no defect: the reader turns it into an error of its own.
    if rzero_io::reader::is_decoding() {
        return;
    }
    let text = format!(
        "error: internal error: {panic}\nhint: this is a defect of the program, please report it with the command line\n"
    );
    io::stderr().write_all(text.as_bytes()).ok();
}

/// How far a piece of work is: a bar on a terminal, a log line every ten seconds elsewhere. Any thread may advance it.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    what: String,
    unit: &'static str,
    started: Instant,
    last_line: Mutex<Instant>,
    is_drawn: bool,
}

impl Progress {
    /// Begins a piece of work of `total` units, such as 512 "questions".
    #[must_use]
    pub fn start(what: &str, total: u64, unit: &'static str) -> Self {
        let is_wanted = tracing::enabled!(tracing::Level::INFO);
        let is_drawn = is_wanted && io::stderr().is_terminal() && std::env::var_os("SLURM_JOB_ID").is_none();
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        if is_drawn {
            let form = format!("{{prefix}} [{{bar:30}}] {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  {{eta}} left  {{msg}}");
            let style = ProgressStyle::with_template(&form).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar.set_prefix(what.to_owned());
            BARS.add(bar.clone()).enable_steady_tick(Duration::from_millis(200));
        }
        let now = Instant::now();
        Self { bar, what: what.to_owned(), unit, started: now, last_line: Mutex::new(now), is_drawn }
    }

    /// Adds finished units.
    pub fn advance(&self, units: u64) {
        self.bar.inc(units);
        if self.is_drawn {
            return;
        }
        let Ok(mut last_line) = self.last_line.try_lock() else { return };
        if last_line.elapsed() >= LINE_INTERVAL {
            *last_line = Instant::now();
            self.log_line();
        }
    }

    /// Shows a second figure beside the bar, such as `1,234 tokens/s`.
    pub fn note(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Units a second so far.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.bar.position() as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    fn log_line(&self) {
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let rate = self.rate();
        let left_seconds = if rate > 0.0 { (total.saturating_sub(done) as f64 / rate).round() } else { f64::INFINITY };
        let note = self.bar.message();
        tracing::info!(done, total, unit = self.unit, rate = format!("{rate:.1}/s"), left_seconds, note, "{}", self.what);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

const LINE_INTERVAL: Duration = Duration::from_secs(10);

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Writes log lines to stderr above the bars instead of through them.
struct BesideBars;

impl Write for BesideBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for BesideBars {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        Self
    }
}
