//! Many events with their bodies, as the lines that a file sink would write, in bounded steps.

use std::sync::Arc;

use bytes::Bytes;

use super::Api;
use super::filters::ListQuery;
use crate::journal::{EventState, Filter, Order};
use crate::serve::Problem;
use crate::serve::guard::Caller;
use crate::sink::cloudevent;

/// Events in one step.
const STEP: usize = 100;

/// The events that a query means, oldest first, up to the newest that there is at the start. Nothing of it is held but a step's lines.
pub struct Export {
    api: Arc<Api>,
    filter: Filter,
    masked: bool,
    from: Option<u64>,
    end: u64,
    /// Found, and not read yet.
    found: Vec<u64>,
    done: bool,
}

impl Export {
    /// Begins one. The query's page and size are not looked at.
    ///
    /// # Errors
    /// The query is wrong.
    pub async fn new(api: Arc<Api>, caller: &Caller, asked: ListQuery) -> Result<Self, Problem> {
        asked.check()?;
        let filter = asked.filter()?;
        api.known(filter.sink.as_deref()).await?;
        if filter.state == Some(EventState::Purged) {
            return Err(Problem::bad("of purged events nothing is left to export"));
        }
        let end = *api.journal.head().borrow();
        Ok(Self { api, filter, masked: caller.is_reader(), from: None, end, found: Vec::new(), done: false })
    }

    /// The next lines; `None` at the end. What is gone meanwhile is left out.
    ///
    /// # Errors
    /// The journal can't be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            while self.found.is_empty() {
                if self.done {
                    return Ok(None);
                }
                let (api, filter) = (&self.api, self.filter.clone());
                let page = api.reader.list(filter, Order::Oldest, self.from, STEP, api.wants.clone()).await?;
                self.found = page.events.iter().map(|event| event.seq).filter(|seq| *seq <= self.end).collect();
                self.from = page.next;
                self.done = page.next.is_none_or(|next| next >= self.end);
            }
            let found = std::mem::take(&mut self.found);
            let shown = self.api.reader.show(found.clone(), self.api.wants.clone()).await?;
            // A page is bounded in bytes, too: what did not fit is read in the next step.
            let last = shown.last().map_or(u64::MAX, |(listed, _)| listed.seq);
            self.found = found.into_iter().filter(|seq| *seq > last).collect();
            let mut lines = Vec::new();
            for (listed, _) in &shown {
                match self.masked {
                    true => cloudevent::append_masked_json(&mut lines, &listed.event),
                    false => cloudevent::append_json(&mut lines, &listed.event),
                }
                lines.push(b'\n');
            }
            if !lines.is_empty() {
                return Ok(Some(lines.into()));
            }
        }
    }
}
