//! The Hugging Face hub: addresses, the listing, requests and what their answers mean.
//!
//! Addresses, the token and the request for the listing are the business of `hf-hub`. It downloads as well, but into a cache of its own,
//! without comparing a digest, without a bound on what a server may send and without noticing a server that ignores a range; so the
//! transfer is done here, with the client beneath it.

pub(crate) mod download;
pub(crate) mod listing;

use crate::exit::StageFailure;
use hf_hub::api::sync::{Api, ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use listing::{Listing, MAX_SMALL_BYTES, RemoteFile, is_sha256};
use std::io::Read;
use std::time::Duration;
use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

/// Largest listing, bytes.
const MAX_LISTING_BYTES: u64 = 1 << 24;

/// Addresses that are followed before a file comes.
const MAX_REDIRECTS: usize = 8;

/// How long nothing may come.
const SILENCE: Duration = Duration::from_secs(60);

/// What kind of repositories is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repositories {
    /// Models.
    Models,
    /// Data sets.
    Datasets,
}

/// A hub and how to speak to it.
#[derive(Debug)]
pub(crate) struct Hub {
    repositories: Repositories,
    api: Api,
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// A file that begins to come.
pub(crate) struct Incoming {
    /// 200 for a whole file, 206 for the part that was asked for, 416 where there is nothing at that place.
    pub(crate) status: u16,
    /// The first byte that comes.
    pub(crate) start: u64,
    /// Bytes of the whole file, if it was announced.
    pub(crate) num_bytes: Option<u64>,
    /// Its digest, if it was announced.
    pub(crate) sha256: Option<String>,
    pub(crate) body: Box<dyn Read>,
}

/// Why a request failed.
pub(crate) enum RequestError {
    /// It may pass.
    Passing(String),
    /// It will not.
    Final(anyhow::Error),
}

impl Hub {
    /// The hub that the environment names.
    pub(crate) fn from_environment(repositories: Repositories) -> anyhow::Result<Self> {
        let variable =
            |name: &str| std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if origin(&endpoint).is_none() {
            let message = format!("HF_ENDPOINT is no address: `{endpoint}`");
            return Err(StageFailure::usage(message).hint("it begins with https://").into());
        }
        let token = variable("HF_TOKEN").or_else(|| Cache::from_env().token());
        if token.as_deref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(StageFailure::usage("HF_TOKEN is no token").hint("copy it again from the hub's settings").into());
        }
        let api = ApiBuilder::from_env().with_endpoint(endpoint.clone()).with_token(token.clone()).with_progress(false).build();
        let api = api.map_err(|error| StageFailure::internal(format!("cannot speak to the hub: {error}")))?;
        // Redirects are followed here: what the hub says of a file stands in its own answer, and the token is for the hub alone.
        let agent = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .accept_encoding("identity")
            .timeout_resolve(Some(SILENCE))
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build()
            .new_agent();
        Ok(Self { repositories, api, agent, endpoint, token })
    }

    fn repository(&self, repository: &str, revision: &str) -> ApiRepo {
        let kind = match self.repositories {
            Repositories::Models => RepoType::Model,
            Repositories::Datasets => RepoType::Dataset,
        };
        self.api.repo(Repo::with_revision(repository.to_owned(), kind, revision.to_owned()))
    }

    /// The address of a file of a commit.
    pub(crate) fn url(&self, repository: &str, commit: &str, name: &str) -> String {
        self.repository(repository, commit).url(name)
    }

    /// What a repository holds at a revision.
    pub(crate) fn listing(&self, repository: &str, revision: &str) -> anyhow::Result<Listing> {
        let request = self.repository(repository, revision).info_request().query("blobs", "true").config();
        let request = request.timeout_global(Some(2 * SILENCE)).http_status_as_error(false).build();
        let mut answer = request.call().map_err(|error| no_network(&self.endpoint, &error.to_string()))?;
        if answer.status().as_u16() != 200 {
            return Err(refusal(answer.status().as_u16(), answer.headers(), &format!("{repository} at revision {revision}")));
        }
        let text = answer.body_mut().with_config().limit(MAX_LISTING_BYTES).read_to_string();
        let text = text.map_err(|error| no_network(&self.endpoint, &format!("its listing broke off: {error}")))?;
        Listing::from_json(&text, revision)
    }

    /// A small file as text.
    pub(crate) fn small_file(&self, repository: &str, commit: &str, file: &RemoteFile) -> anyhow::Result<String> {
        let incoming = self.open(&self.url(repository, commit, &file.name), 0).map_err(|error| match error {
            RequestError::Passing(problem) => no_network(&self.endpoint, &problem),
            RequestError::Final(error) => error,
        })?;
        let mut text = String::new();
        let most = file.num_bytes.unwrap_or(MAX_SMALL_BYTES);
        incoming.body.take(most + 1).read_to_string(&mut text).map_err(|error| no_network(&self.endpoint, &error.to_string()))?;
        if text.len() as u64 > most || file.num_bytes.is_some_and(|num_bytes| num_bytes != text.len() as u64) {
            return Err(StageFailure::input(format!("{} has another size than was announced", file.name)).into());
        }
        Ok(text)
    }

    /// Asks for a file from a byte on.
    pub(crate) fn open(&self, url: &str, start: u64) -> Result<Incoming, RequestError> {
        let mut address = url.to_owned();
        let (mut num_bytes, mut sha256) = (None, None);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&address);
            if let Some(token) = self.token.as_deref().filter(|_| origin(&address) == origin(&self.endpoint)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if start > 0 {
                request = request.header("Range", format!("bytes={start}-"));
            }
            let answer = request.call().map_err(|error| RequestError::Passing(format!("{address}: {error}")))?;
            let status = answer.status().as_u16();
            let headers = answer.headers();
            if origin(&address) == origin(&self.endpoint) {
                num_bytes = num_bytes.or_else(|| header(headers, "x-linked-size")?.parse().ok());
                let digest =
                    header(headers, "x-linked-etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned());
                sha256 = sha256.or_else(|| digest.filter(|digest| is_sha256(digest)));
            }
            match status {
                200 | 206 | 416 => return Ok(incoming(answer, num_bytes, sha256)),
                301 | 302 | 303 | 307 | 308 => address = redirected(&address, header(headers, "location"))?,
                408 | 425 | 429 | 500..=599 => return Err(RequestError::Passing(format!("{address}: status {status}"))),
                _ => return Err(RequestError::Final(refusal(status, headers, url))),
            }
        }
        Err(RequestError::Final(StageFailure::input(format!("{url} leads from one address to the next without end")).into()))
    }

    /// The error of a hub that cannot be reached.
    pub(crate) fn unreachable(&self, problem: &str) -> anyhow::Error {
        no_network(&self.endpoint, problem)
    }
}

fn incoming(answer: Response<Body>, linked_bytes: Option<u64>, sha256: Option<String>) -> Incoming {
    let status = answer.status().as_u16();
    // `bytes 5-9/10`: the first byte, and all of them.
    let range = header(answer.headers(), "content-range").and_then(|range| range.strip_prefix("bytes "));
    let (start, of_range) = match range.and_then(|range| range.split_once('/')) {
        Some((span, whole)) => (span.split_once('-').and_then(|(start, _)| start.parse().ok()), whole.parse().ok()),
        None => (None, None),
    };
    let whole =
        if status == 200 { header(answer.headers(), "content-length").and_then(|length| length.parse().ok()) } else { of_range };
    Incoming {
        status,
        start: if status == 206 { start.unwrap_or(u64::MAX) } else { 0 },
        num_bytes: linked_bytes.or(whole),
        sha256,
        body: Box::new(answer.into_body().into_reader()),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Scheme and host of an address.
fn origin(address: &str) -> Option<&str> {
    let host_at = ["https://", "http://"].iter().find(|scheme| address.starts_with(**scheme))?.len();
    let host = address[host_at..].split(['/', '?', '#']).next().filter(|host| !host.is_empty() && !host.contains('@'))?;
    Some(&address[..host_at + host.len()])
}

fn redirected(address: &str, location: Option<&str>) -> Result<String, RequestError> {
    let refused = |problem: &str| Err(RequestError::Final(StageFailure::input(format!("{address} leads {problem}")).into()));
    let (Some(location), Some(here)) = (location, origin(address)) else { return refused("nowhere") };
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok(format!("{here}{location}"));
    }
    match origin(location) {
        Some(_) if address.starts_with("https://") && !location.starts_with("https://") => {
            refused("from https to a place without it")
        }
        Some(_) => Ok(location.to_owned()),
        None => refused("to what is no address"),
    }
}

/// What an answer other than the file means, with what to do.
fn refusal(status: u16, headers: &HeaderMap, what: &str) -> anyhow::Error {
    let code = header(headers, "x-error-code").unwrap_or_default();
    let terms = "accept its terms on its page in the hub, and set HF_TOKEN to a token that may read it";
    let failure = match (status, code) {
        (401 | 403, "GatedRepo") => {
            StageFailure::usage(format!("the hub gives {what} only to those who accepted its terms")).hint(terms)
        }
        (404, "RevisionNotFound") => StageFailure::usage(format!("the hub knows no {what}"))
            .hint("check the revision: a commit, a tag or a branch such as main"),
        (401, _) => StageFailure::usage(format!("the hub does not show {what} (status 401)")).hint(format!(
            "check its name: this is also the answer for one that does not exist; if it is private or gated, {terms}"
        )),
        (403, _) => StageFailure::usage(format!("the hub refuses {what} (status 403)")).hint(terms),
        (404, _) => StageFailure::usage(format!("the hub knows no {what} (status 404)"))
            .hint("check --repository and --revision; a private one needs HF_TOKEN"),
        _ => StageFailure::internal(format!("the hub answers {what} with status {status}"))
            .hint("try again later; what was fetched is kept"),
    };
    failure.into()
}

fn no_network(endpoint: &str, problem: &str) -> anyhow::Error {
    StageFailure::internal(format!("cannot fetch from {endpoint}: {problem}"))
        .hint("check the network and HF_ENDPOINT: what was fetched is kept, and the same command goes on from there; for a machine without a \
               network, fetch the folder elsewhere and copy it")
        .into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_followed_and_never_out_of_https() {
        assert_eq!(origin("https://hub.example:8080/a/b?c"), Some("https://hub.example:8080"));
        for text in ["ftp://x", "https://", "https:///a", "hub.example", "https://user@hub.example/a"] {
            assert_eq!(origin(text), None, "{text}");
        }
        let go = |from: &str, to: &str| redirected(from, Some(to)).ok();
        assert_eq!(go("https://a/b", "/c?d").as_deref(), Some("https://a/c?d"));
        assert_eq!(go("http://a/b", "https://c/d").as_deref(), Some("https://c/d"));
        assert_eq!(
            (go("https://a/b", "http://a/c"), go("https://a/b", "//c/d"), go("https://a/b", "file:///etc")),
            (None, None, None)
        );
    }
}
