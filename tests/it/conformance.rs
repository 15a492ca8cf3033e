//! What the journal's interface promises, written once against the interface, and run on every store.
//!
//! A promise is an async function of a [`Place`]. A further store adds a way to make places, and a line below.

mod append;
mod deliveries;
mod operators;
mod retention;

use std::sync::Arc;

use finhook::config;
use finhook::journal::{Journal, Reader, Row, Running, Wants};
use tempfile::TempDir;

use crate::support::events;

/// Where a journal is kept: opened and closed as often as a promise needs.
struct Place {
    settings: config::Journal,
    _folder: TempDir,
}

impl Place {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { settings: events::settings(folder.path()), _folder: folder }
    }

    fn open(&self) -> Open {
        let (journal, running) = events::open(&self.settings);
        let reader = journal.reader().unwrap();
        Open { journal, reader, running }
    }
}

/// An open journal.
struct Open {
    journal: Journal,
    reader: Reader,
    running: Running,
}

impl Open {
    async fn close(self) {
        events::close(self.journal, self.running).await;
    }

    /// Appends events of a conversation, the first with this number; their sequence numbers.
    async fn append(&self, conversation: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<u64> {
        let mut seqs = Vec::new();
        for number in numbers {
            match self.journal.append(events::event(conversation, number)).await.unwrap() {
                finhook::journal::Appended::Stored { seq } => seqs.push(seq),
                other => panic!("{other:?}"),
            }
        }
        seqs
    }

    /// The sequence numbers of everything stored.
    async fn stored(&self) -> Vec<u64> {
        // A reader of its own: it has asked for nothing yet, so that memory is not what answers.
        let reader = self.journal.reader().unwrap();
        let (mut seqs, mut after) = (Vec::new(), 0);
        loop {
            let page = reader.after(after, 100, None).await.unwrap();
            let Some(last) = page.last() else { return seqs };
            after = last.row.seq();
            for fresh in &page {
                assert!(matches!(fresh.row, Row::Sound(_)), "{fresh:?}");
                seqs.push(fresh.row.seq());
            }
        }
    }
}

/// Every sink gets every event.
fn everything() -> Wants {
    Arc::new(|_, _| true)
}

/// Runs each promise on each store.
macro_rules! promises {
    ($($module:ident { $($promise:ident)* })*) => {
        mod sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    super::$module::$promise(super::Place::sqlite()).await;
                }
            )*)*
        }
    };
}

promises! {
    append {
        numbers_ascend_without_gaps_and_the_head_follows
        an_event_is_stored_once_however_often_it_comes_also_after_a_restart
        of_many_senders_of_one_event_one_stores_it
        what_is_read_back_is_what_was_stored
        an_append_lives_on_when_its_sender_hangs_up
        what_was_acknowledged_is_there_for_every_reader_at_once
        a_page_is_bounded_in_rows_and_in_bytes
        a_closed_journal_takes_nothing_more
    }
    deliveries {
        a_new_sink_begins_now_or_with_everything_stored_and_a_known_one_where_it_was
        a_cursor_never_moves_back
        what_a_settlement_holds_is_recorded_whole_and_survives_a_restart
        a_lane_keeps_its_state_as_long_as_it_has_parked_events
        the_longest_due_lane_comes_first_and_one_beyond_the_horizon_is_due
        events_behind_parked_ones_of_their_lane_are_told_apart
        parked_events_come_in_their_order_page_by_page
        what_was_parked_or_dead_beyond_the_cursor_is_known_after_a_crash
        a_pause_is_remembered
        a_replay_has_lanes_of_its_own_its_mark_and_the_order_of_its_events
        retried_dead_letters_are_parked_anew_step_by_step
        a_forgotten_sink_leaves_nothing_and_its_name_begins_anew
    }
    operators {
        lists_hold_what_the_filter_means_page_by_page_from_either_end
        an_event_is_found_with_its_standing_at_every_sink
        ids_are_resolved_in_their_order
        sinks_are_reported_by_name
        a_purge_removes_an_event_everywhere_but_its_id
        what_is_settled_of_a_purged_event_does_not_bring_it_back
        the_oldest_of_a_lane_is_purged_and_the_next_begins_anew
    }
    retention {
        bodies_stay_until_every_sink_was_done_with_them_for_long_enough
        ids_are_forgotten_after_the_window_and_numbers_never_come_again
        what_is_parked_or_dead_is_kept
    }
}
