//! Requests to an OpenAI-compatible server: sent, and sent again where a failure may pass; read within bounds; several at a time.
//!
//! A failure that may pass (a time-out, a cut stream, 429, 5xx) is tried again a bounded number of times, after waits that double. A server that is
//! not there, or that refuses the key or the address, ends the stage: no request would do better. Keys come from the environment and go nowhere but
//! into their header. What a reply means is for the caller to say.

use crate::exit::StageFailure;
use crate::interrupt::Interrupt;
use std::io::{ErrorKind, Read};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body};

/// Wait after the first failure; it doubles with each. A server that says how long to wait is heard, up to [`MAX_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Longest wait before a request is sent again.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How often an address is tried at which nobody is.
const MOST_CALLS: u32 = 3;

/// Most that is kept of a server's own words about a failure, characters.
const MAX_REASON_CHARS: usize = 200;

/// Whom a transport speaks to, in what it tells people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Service {
    /// What it is, for example `judge`.
    pub(crate) name: &'static str,
    /// Setting that holds its address.
    pub(crate) setting: &'static str,
    /// The variable that holds the key; without it none is sent.
    pub(crate) key_variable: &'static str,
    /// What to check where the address is refused.
    pub(crate) address_hint: &'static str,
    /// What to do where nobody is there.
    pub(crate) start_hint: &'static str,
    /// How often a request is sent before its failure is taken for lasting.
    pub(crate) max_attempts: u32,
    /// Most that is read of what a server sends, bytes.
    pub(crate) max_body_bytes: u64,
    /// Whether a scheduler should try again where nobody is there (exit code 75).
    pub(crate) may_come_back: bool,
}

/// What a caller makes of a reply.
#[derive(Debug)]
pub(crate) enum Reading<T> {
    /// What was wanted.
    Good(T),
    /// Nothing, but another attempt may do better.
    Again(String),
    /// Nothing, and it will stay so.
    Bad(String),
}

/// What came of a request after all attempts.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    /// What was wanted.
    Good(T),
    /// Why there is nothing; the server itself said so, or its reply did.
    Bad(String),
    /// The last of the failures that might have passed.
    Exhausted(String),
}

/// A way to one server.
#[derive(Debug)]
pub(crate) struct Transport {
    agent: Agent,
    key: Option<String>,
    service: Service,
}

/// What came of one attempt.
enum Attempt<T> {
    Read(Reading<T>),
    /// It may pass: the problem, and how long the server asks to wait.
    Passing(String, Option<Duration>),
    /// Nobody is there.
    Unreachable(String),
    /// No request will do better.
    Refused(StageFailure),
}

impl Transport {
    /// A way to a server, with the key in the environment if there is one.
    ///
    /// # Errors
    /// When the key is none: exit code 2.
    pub(crate) fn new(service: Service, timeout: Duration) -> anyhow::Result<Self> {
        let variable = service.key_variable;
        let key = std::env::var(variable).ok().map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        if key.as_deref().is_some_and(|key| !key.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(StageFailure::usage(format!("{variable} is no key"))
                .hint("copy it again from where it was given out")
                .into());
        }
        let agent = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .accept_encoding("identity")
            .timeout_global(Some(timeout))
            .build()
            .new_agent();
        Ok(Self { agent, key, service })
    }

    /// Sends a request until its reply can be used, or no more is to be hoped for.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses to serve, or a signal came.
    pub(crate) fn post<T>(
        &self,
        address: &str,
        body: &str,
        interrupt: &Interrupt,
        read: impl Fn(&[u8]) -> Reading<T>,
    ) -> anyhow::Result<Outcome<T>> {
        let mut attempt = 1;
        loop {
            interrupt.check()?;
            let is_last = attempt == self.service.max_attempts;
            let (problem, wait) = match self.attempt(address, body, &read) {
                Attempt::Read(Reading::Good(value)) => return Ok(Outcome::Good(value)),
                Attempt::Read(Reading::Bad(problem)) => return Ok(Outcome::Bad(problem)),
                Attempt::Refused(failure) => return Err(failure.into()),
                Attempt::Unreachable(problem) if attempt >= MOST_CALLS => return Err(self.unreachable(address, &problem).into()),
                Attempt::Unreachable(problem) => (problem, None),
                Attempt::Read(Reading::Again(problem)) => (problem, None),
                Attempt::Passing(problem, wait) => (problem, wait),
            };
            if is_last {
                return Ok(Outcome::Exhausted(format!("{problem}, {attempt} times")));
            }
            tracing::debug!(attempt, problem, "asking again");
            interrupt.wait(wait.unwrap_or_else(|| backoff(attempt, body)).min(MAX_WAIT))?;
            attempt += 1;
        }
    }

    fn attempt<T>(&self, address: &str, body: &str, read: &impl Fn(&[u8]) -> Reading<T>) -> Attempt<T> {
        let mut request = self.agent.post(address).header("Content-Type", "application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", format!("Bearer {key}"));
        }
        match request.send(body) {
            Ok(answer) => self.receive(address, answer, read),
            Err(error) => match &error {
                ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => Attempt::Unreachable(error.to_string()),
                ureq::Error::Io(cause) if is_nobody_there(cause.kind()) => Attempt::Unreachable(error.to_string()),
                _ => Attempt::Passing(self.without_key(&error.to_string()), None),
            },
        }
    }

    fn receive<T>(&self, address: &str, mut answer: Response<Body>, read: &impl Fn(&[u8]) -> Reading<T>) -> Attempt<T> {
        let status = answer.status().as_u16();
        let wait = answer.headers().get("retry-after").and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok());
        let most = self.service.max_body_bytes;
        let mut bytes = Vec::new();
        let is_whole = answer.body_mut().as_reader().take(most).read_to_end(&mut bytes);
        let Service { key_variable, address_hint, .. } = self.service;
        let words = || {
            let words: String = String::from_utf8_lossy(&bytes).chars().take(MAX_REASON_CHARS).collect();
            self.without_key(&words).replace(char::is_control, " ")
        };
        match status {
            200 => {}
            401 | 403 => return Attempt::Refused(self.refusal(address, status, &format!("check the key in {key_variable}"))),
            300..=399 | 404 | 405 => return Attempt::Refused(self.refusal(address, status, address_hint)),
            408 | 425 | 429 | 500..=599 => {
                let told = if bytes.is_empty() { String::new() } else { format!(": {}", words()) };
                return Attempt::Passing(format!("status {status}{told}"), wait.map(Duration::from_secs));
            }
            _ => return Attempt::Read(Reading::Bad(format!("status {status}: {}", words()))),
        }
        if let Err(error) = is_whole {
            return Attempt::Passing(format!("the reply broke off: {error}"), None);
        }
        if bytes.len() as u64 == most {
            return Attempt::Read(Reading::Bad(format!("the reply is longer than {most} bytes")));
        }
        Attempt::Read(read(&bytes))
    }

    fn refusal(&self, address: &str, status: u16, hint: &str) -> StageFailure {
        StageFailure::usage(format!("the {} at {address} refuses to serve: status {status}", self.service.name)).hint(hint)
    }

    fn unreachable(&self, address: &str, problem: &str) -> StageFailure {
        let message = format!("no {} can be reached at {address}: {problem}", self.service.name);
        let failure = if self.service.may_come_back { StageFailure::temporary(message) } else { StageFailure::internal(message) };
        failure.hint(self.service.start_hint)
    }

    /// A server may repeat what it was sent.
    fn without_key(&self, text: &str) -> String {
        self.key.as_ref().map_or_else(|| text.to_owned(), |key| text.replace(key.as_str(), "(key)"))
    }
}

impl Service {
    /// An address as people type it, without the slash at its end.
    ///
    /// # Errors
    /// When it is none: exit code 2.
    pub(crate) fn address<'a>(&self, typed: &'a str) -> anyhow::Result<&'a str> {
        let address = typed.trim().trim_end_matches('/');
        let host = address.strip_prefix("https://").or_else(|| address.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(|letter: char| !letter.is_ascii_graphic() || letter == '@')) {
            return Err(StageFailure::usage(format!("{} is no address: `{address}`", self.setting))
                .hint("it begins with https:// or http:// and a host, such as http://localhost:8000/v1")
                .into());
        }
        Ok(address)
    }
}

/// What came of `count` pieces of work, in their order, so many done at a time. The first error stops the rest.
///
/// # Errors
/// The first that a piece of work has.
pub(crate) fn in_parallel<T: Send + Sync>(
    num_parallel: u32,
    count: usize,
    work: impl Fn(usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let results: Vec<OnceLock<T>> = (0..count).map(|_| OnceLock::new()).collect();
    let (next, stop) = (AtomicUsize::new(0), OnceLock::new());
    let take = || {
        while stop.get().is_none() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(result) = results.get(at) else { return };
            match work(at) {
                Ok(value) => drop(result.set(value)),
                Err(error) => drop(stop.set(error)),
            }
        }
    };
    std::thread::scope(|scope| {
        // A thread that the system does not give is one request less at a time.
        for _ in 1..num_parallel.min(u32::try_from(count).unwrap_or(u32::MAX)) {
            Builder::new().spawn_scoped(scope, take).ok();
        }
        take();
    });
    if let Some(error) = stop.into_inner() {
        return Err(error);
    }
    let results: Option<Vec<T>> = results.into_iter().map(OnceLock::into_inner).collect();
    results.ok_or_else(|| StageFailure::internal("a request was never sent").into())
}

/// Doubles with every attempt, and differs from request to request, so that many that failed at once do not come back at once.
fn backoff(attempt: u32, body: &str) -> Duration {
    let whole = FIRST_WAIT * 2u32.pow((attempt - 1).min(10));
    whole / 2 + whole * u32::from(blake3::hash(body.as_bytes()).as_bytes()[0]) / 512
}

fn is_nobody_there(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable
    )
}
