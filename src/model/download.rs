//! One file over HTTP into a part file, with as many requests as it takes.
//!
//! What arrived stays in the part file, whatever happens: the next request, of this call or of
//! another process, asks for the rest.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::error::{Error, Result};

use super::failure::{Failure, Refusal};
use super::fetch::{Fetch, FetchEvent};
use super::transfer::Client;

/// A file to download.
pub(crate) struct Download<'a> {
    pub(crate) fetch: Fetch<'a>,
    pub(crate) client: &'a Client,
    pub(crate) url: &'a str,
    /// Its name for events and messages.
    pub(crate) file: &'a str,
    /// Where the bytes go.
    pub(crate) part: &'a Path,
    /// Its size in bytes, if it is known beforehand.
    pub(crate) size: Option<u64>,
}

/// Getting this many bytes further than ever before makes the count of retries start anew.
const HEADWAY: u64 = 1 << 20;

impl Download<'_> {
    /// Tries until the part file is complete, as long as there is hope.
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut failures = 0;
        let mut furthest = length(self.part);
        loop {
            let before = length(self.part);
            let Err(failure) = self.attempt() else { return Ok(()) };
            let after = length(self.part);
            if after >= furthest + HEADWAY {
                furthest = after;
                failures = 0;
            }
            let hopeless = matches!(failure, Failure::Silent(_)) && after <= before;
            let retries = self.fetch.sources.patience.retries;
            if !failure.is_passing() || hopeless || failures >= retries {
                return Err(failure);
            }
            failures += 1;
            back_off(self.fetch, self.client, self.file, &failure, failures)?;
        }
    }

    /// One request: appends to the part file what it lacks.
    fn attempt(&self) -> Result<(), Failure> {
        let open = OpenOptions::new().create(true).append(true).open(self.part);
        let mut output = open.map_err(Error::io("create", self.part))?;
        let empty = |output: &File| output.set_len(0).map_err(Error::io("write", self.part));
        let mut have = length(self.part);
        if self.size.is_some_and(|size| have > size) {
            empty(&output)?;
            have = 0;
        }
        if have > 0 && self.size == Some(have) {
            return Ok(());
        }
        let mut reply = match self.client.get(self.url, have) {
            Err(Failure::Refused(Refusal { status: 416, host, .. })) if have > 0 => {
                empty(&output)?;
                return Err(Failure::Broken(format!("{host} cannot go on at byte {have}")));
            }
            reply => reply?,
        };
        if reply.start != have {
            empty(&output)?;
            if reply.start != 0 {
                let reason = format!("the server sent byte {} on, not {have}", reply.start);
                return Err(Failure::Broken(reason));
            }
            have = 0;
            self.fetch
                .note(format!("{}: the server cannot resume; starting from zero", self.file))?;
        }
        let file = self.file;
        let total = reply.total.or(self.size);
        if let (Some(expected), Some(total)) = (self.size, total)
            && expected != total
        {
            empty(&output)?;
            return Err(Failure::Rejected(format!(
                "{file} has {total} bytes there, expected {expected}"
            )));
        }
        self.fetch.tell(FetchEvent::Started { file: file.into(), size: total, resumed: have })?;
        let cut = |have: u64, reason: &str| {
            let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
            Failure::Broken(format!("the transfer was cut at byte {have}{of}: {reason}"))
        };
        let mut buffer = vec![0; 1 << 17];
        loop {
            let read = reply.read(&mut buffer).map_err(|failure| match failure {
                Failure::Broken(reason) => cut(have, &reason),
                failure => failure,
            })?;
            if read == 0 {
                break;
            }
            have += read as u64;
            if total.is_some_and(|total| have > total) {
                empty(&output)?;
                return Err(Failure::Rejected(format!("the server sends too much for {file}")));
            }
            output.write_all(&buffer[..read]).map_err(Error::io("write", self.part))?;
            self.fetch.tell(FetchEvent::Advanced { bytes: read as u64 })?;
        }
        if total.is_some_and(|total| have < total) {
            return Err(cut(have, "the body ended"));
        }
        output.sync_all().map_err(Error::io("write", self.part))?;
        Ok(())
    }
}

/// Tells of a failure and pauses before try number `failures`.
pub(crate) fn back_off(
    fetch: Fetch<'_>,
    client: &Client,
    file: &str,
    failure: &Failure,
    failures: u32,
) -> Result<()> {
    let patience = fetch.sources.patience;
    let reason = client.scrub(&failure.to_string());
    fetch.note(format!("{file}: {reason}; try {failures} of {}", patience.retries))?;
    fetch.pause(patience.backoff * (1 << (failures - 1).min(6)))
}

/// Bytes of a file; 0 if there is none.
pub(crate) fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |metadata| metadata.len())
}
