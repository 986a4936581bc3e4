//! A beta list as people see it, page by page: it may have millions of users.

use crate::api::{BetaEvent, BetaPage, BetaUser};
use crate::flag::{BetaChangeKind, BetaChanged, Flag, Rollout};

/// More users than this are counted in an event, not named.
const MAX_NAMED: usize = 100;

/// A cursor that leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CursorError {
    /// It is none that was given out.
    #[error("`cursor` is the `next` of the page before, as it was given")]
    Unknown,
    /// The file that it leads into was replaced.
    #[error("the list has changed since the page before; begin again without `cursor`")]
    Changed,
}

/// What an event says of a change.
pub(crate) fn beta_event(changed: &BetaChanged) -> BetaEvent {
    let named = |users: &[String]| users.iter().take(MAX_NAMED).cloned().collect();
    BetaEvent {
        added: changed.added.len(),
        removed: changed.removed.len(),
        users_added: named(&changed.added),
        users_removed: named(&changed.removed),
    }
}

/// The parts of a list, in the order in which they are shown. A cursor is the letter of one, and how far it went.
const PARTS: [char; 4] = ['a', 'r', 'l', 'f'];

/// At most `limit` users of the list from `cursor` on.
pub(crate) fn page(
    flag: &Flag,
    rollout: &Rollout,
    cursor: Option<&str>,
    limit: usize,
) -> Result<BetaPage, CursorError> {
    let (from, mut after) = match cursor {
        None => (0, None),
        Some(cursor) => {
            let (part, after) = cursor.split_once(':').ok_or(CursorError::Unknown)?;
            let position = PARTS.iter().position(|known| part.parse() == Ok(*known)).ok_or(CursorError::Unknown)?;
            (position, Some(after))
        }
    };
    let mut users: Vec<BetaUser> = Vec::new();
    let mut next = None;
    for part in PARTS.into_iter().skip(from) {
        let room = limit - users.len();
        let found = match part {
            'a' => changed(rollout, BetaChangeKind::Added, after, room),
            'r' => changed(rollout, BetaChangeKind::Removed, after, room),
            'l' => listed(flag, rollout, after, room),
            _ => filed(flag, rollout, after, room)?,
        };
        after = None;
        users.extend(found.users);
        if let Some(rest) = found.next {
            next = Some(format!("{part}:{rest}"));
            break;
        }
    }
    Ok(BetaPage { beta_users: rollout.beta.len_over(&flag.beta), users, next })
}

/// Some users of one part, and what they go on after, if they do.
struct Found {
    users: Vec<BetaUser>,
    next: Option<String>,
}

fn changed(rollout: &Rollout, kind: BetaChangeKind, after: Option<&str>, room: usize) -> Found {
    let source = match kind {
        BetaChangeKind::Added => "added",
        BetaChangeKind::Removed => "removed",
    };
    let wanted =
        rollout.beta.iter().filter(|(user, change)| change.kind == kind && after.is_none_or(|after| *user > after));
    let mut wanted: Vec<_> = wanted.collect();
    wanted.sort_unstable_by_key(|(user, _)| *user);
    let users: Vec<_> = wanted
        .iter()
        .take(room)
        .map(|(user, change)| BetaUser {
            user: (*user).to_owned(),
            source: source.to_owned(),
            by: Some(change.by.clone()),
            at: Some(change.at.clone()),
        })
        .collect();
    let is_more = wanted.len() > users.len();
    let last = users.last().map(|last| last.user.clone()).or(after.map(str::to_owned)).unwrap_or_default();
    Found { next: is_more.then_some(last), users }
}

fn listed(flag: &Flag, rollout: &Rollout, after: Option<&str>, room: usize) -> Found {
    let listed = flag.beta.listed();
    let mut wanted = listed.into_iter().filter(|user| after.is_none_or(|after| *user > after));
    let mut wanted = wanted.by_ref().filter(|user| rollout.beta.get(user).is_none());
    let users: Vec<_> = wanted.by_ref().take(room).map(|user| of_file(user, "flag_file")).collect();
    let is_more = wanted.next().is_some();
    let last = users.last().map(|last| last.user.clone()).or(after.map(str::to_owned)).unwrap_or_default();
    Found { next: is_more.then_some(last), users }
}

fn filed(flag: &Flag, rollout: &Rollout, after: Option<&str>, room: usize) -> Result<Found, CursorError> {
    let Some(file) = flag.beta.file() else { return Ok(Found { users: Vec::new(), next: None }) };
    let version = file.version().to_string();
    let begins = match after {
        None => 0,
        Some(after) => {
            let (offset, of) = after.split_once(':').ok_or(CursorError::Unknown)?;
            if of != version {
                return Err(CursorError::Changed);
            }
            offset.parse().map_err(|_| CursorError::Unknown)?
        }
    };
    let listed = flag.beta.listed();
    let is_shown = |user: &str| rollout.beta.get(user).is_some() || listed.binary_search(&user).is_ok();
    let mut rest = file.keys_from(begins).filter(|(_, user)| !is_shown(user));
    let users = rest.by_ref().take(room).map(|(_, user)| of_file(user, "users_file")).collect();
    Ok(Found { users, next: rest.next().map(|(begins, _)| format!("{begins}:{version}")) })
}

fn of_file(user: &str, source: &str) -> BetaUser {
    BetaUser { user: user.to_owned(), source: source.to_owned(), by: None, at: None }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::flag::{BetaList, Bucketer, Generation, HashVersion, KeyLines, Percentage, Rules};

    fn flag(file: &str) -> Flag {
        let file = Arc::new(KeyLines::new(file.to_owned()).unwrap());
        Flag {
            key: "f".parse().unwrap(),
            description: String::new(),
            owner: String::new(),
            enabled: true,
            release: "1".to_owned(),
            stable: "sync".parse().unwrap(),
            canary: "async".parse().unwrap(),
            percentage: Percentage::ZERO,
            bucketer: Bucketer::new(HashVersion::FlagdV2, "f"),
            beta: BetaList::new(["bob", "alice"].map(Into::into), Some(file)),
            rules: Rules::default(),
            ramp: None,
            shadow: None,
        }
    }

    #[test]
    fn pages_make_the_whole_list_whatever_their_length() {
        let flag = flag("dave\n# nobody\nbob\n\n erin\nfrank\ndave\n");
        let users = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rollout = Rollout::begin(&flag, Generation::FIRST);
        let (rollout, _) = rollout.change_beta(&flag, &users("zoe adam"), &users("alice frank"), "me", "now").unwrap();
        for limit in 1..10 {
            let (mut cursor, mut found) = (None, Vec::new());
            loop {
                let page = page(&flag, &rollout, cursor.as_deref(), limit).unwrap();
                assert!(page.users.len() <= limit);
                assert_eq!(page.beta_users, 5);
                found.extend(page.users.into_iter().map(|user| format!("{} {}", user.source, user.user)));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(
                found,
                [
                    "added adam",
                    "added zoe",
                    "removed alice",
                    "removed frank",
                    "flag_file bob",
                    "users_file dave",
                    "users_file erin",
                ],
                "{limit} a page"
            );
        }
        let next = page(&flag, &rollout, None, 6).unwrap().next.unwrap();
        let other = self::flag("somebody else\n");
        assert_eq!(page(&other, &rollout, Some(&next), 6), Err(CursorError::Changed));
        for wrong in ["", "x", "x:y", "f:1", "f:x:y"] {
            assert!(page(&flag, &rollout, Some(wrong), 6).is_err(), "{wrong}");
        }
        let far = format!("f:999:{}", flag.beta.file_version().unwrap());
        assert_eq!(page(&flag, &rollout, Some(&far), 6).unwrap().users, []);
    }
}
