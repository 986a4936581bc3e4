//! What a list of questions is filtered and sorted by, and the cursor that goes on where a page ended.
//!
//! Paging is by key, not by number: a page begins after the last question of the one before it, so questions that come
//! or go meanwhile neither repeat nor hide others. (Winand: "SQL Performance Explained", chapter 7, the seek method.)

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::backend::problem::FieldError;

/// The most questions of a page.
const MAX_LIMIT: u32 = 200;

/// Questions of a page that names no number.
const DEFAULT_LIMIT: u32 = 50;

/// The most sort keys; the id, which ends every order, is not counted.
const MAX_KEYS: usize = 4;

/// The most values of one filter.
const MAX_VALUES: usize = 50;

/// What questions can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Key {
    Id,
    Category,
    Difficulty,
    UsageCount,
    Discrimination,
}

impl Key {
    const ALL: [(&'static str, Self); 5] = [
        ("id", Self::Id),
        ("category", Self::Category),
        ("difficulty", Self::Difficulty),
        ("usageCount", Self::UsageCount),
        ("discrimination", Self::Discrimination),
    ];

    /// The column.
    pub(crate) const fn column(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Category => "category",
            Self::Difficulty => "difficulty_rank",
            Self::UsageCount => "usage_count",
            Self::Discrimination => "discrimination",
        }
    }
}

/// One key of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) key: Key,
    pub(crate) descending: bool,
}

/// The place in an order where a page ended: the value of one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Place {
    Whole(i64),
    Real(f64),
    Text(String),
}

/// Which questions are listed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Filter {
    pub(crate) ids: Vec<String>,
    pub(crate) categories: Vec<String>,
    pub(crate) difficulties: Vec<String>,
    /// Questions that suit one of these.
    pub(crate) roles: Vec<String>,
    /// Questions that probe one of these.
    pub(crate) skills: Vec<String>,
    /// In lower case; the question's text contains it.
    pub(crate) text: Option<String>,
    pub(crate) min_usage: Option<i64>,
    pub(crate) max_usage: Option<i64>,
}

/// A checked query of `GET /api/v1/questions`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listing {
    pub(crate) filter: Filter,
    /// Always ends with the id, so that no two questions are in the same place.
    pub(crate) order: Vec<Order>,
    pub(crate) limit: u32,
    /// The places, one a key of `order`, after which the page begins.
    pub(crate) after: Option<Vec<Place>>,
}

/// A cursor as it is written; it holds everything, so that the next page needs nothing else.
#[derive(Debug, Serialize, Deserialize)]
struct Cursor {
    filter: Filter,
    order: Vec<Order>,
    limit: u32,
    after: Vec<Place>,
}

impl Listing {
    /// Reads the parameters of a query.
    ///
    /// # Errors
    ///
    /// Every parameter that is wrong.
    pub(crate) fn read(parameters: &[(String, String)]) -> Result<Self, Vec<FieldError>> {
        let mut listing = Self { filter: Filter::default(), order: Vec::new(), limit: DEFAULT_LIMIT, after: None };
        let mut errors = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in parameters {
            let refused = if seen.contains(&name.as_str()) {
                Err("is given twice; join values with commas".to_owned())
            } else {
                listing.take(name, value, parameters.len())
            };
            seen.push(name);
            if let Err(message) = refused {
                errors.push(FieldError { field: name.clone(), message });
            }
        }
        if !listing.order.iter().any(|order| order.key == Key::Id) {
            listing.order.push(Order { key: Key::Id, descending: false });
        }
        if errors.is_empty() { Ok(listing) } else { Err(errors) }
    }

    fn take(&mut self, name: &str, value: &str, parameters: usize) -> Result<(), String> {
        match name {
            "id" => self.filter.ids = values(value)?,
            "category" => self.filter.categories = values(value)?,
            "difficulty" => self.filter.difficulties = values(value)?,
            "role" => self.filter.roles = values(value)?,
            "skill" => self.filter.skills = values(value)?,
            "text" if value.trim().is_empty() || value.contains('\0') => return Err("must not be blank".to_owned()),
            "text" => self.filter.text = Some(value.to_lowercase()),
            "minUsage" => self.filter.min_usage = Some(count(value)?),
            "maxUsage" => self.filter.max_usage = Some(count(value)?),
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                self.limit = limit.ok_or_else(|| format!("must be an integer from 1 to {MAX_LIMIT}"))?;
            }
            "sort" => self.order = order(value)?,
            "cursor" if parameters > 1 => return Err("holds the whole query; give nothing beside it".to_owned()),
            "cursor" => *self = cursor(value).ok_or("is not one that a page ended with")?,
            _ => return Err("is not a known parameter".to_owned()),
        }
        Ok(())
    }

    /// The cursor of a page that ended with `last`.
    pub(crate) fn cursor(&self, last: &Listed) -> String {
        let after = self.order.iter().map(|order| last.place(order.key)).collect();
        let cursor = Cursor { filter: self.filter.clone(), order: self.order.clone(), limit: self.limit, after };
        // A cursor is plain data: there is nothing in it that cannot be written.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
    }

    /// The filter's text as the pattern of `LIKE … ESCAPE '\'`.
    pub(crate) fn pattern(&self) -> Option<String> {
        let text = self.filter.text.as_ref()?;
        let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        Some(format!("%{escaped}%"))
    }
}

fn values(text: &str) -> Result<Vec<String>, String> {
    let values: Vec<String> = text.split(',').map(|value| value.trim().to_owned()).collect();
    if values.len() > MAX_VALUES {
        return Err(format!("must be at most {MAX_VALUES} values"));
    }
    if values.iter().any(|value| value.is_empty() || value.contains('\0')) {
        return Err("must be values with commas between".to_owned());
    }
    Ok(values)
}

fn count(text: &str) -> Result<i64, String> {
    text.parse().ok().filter(|count| *count >= 0).ok_or_else(|| "must be an integer from 0".to_owned())
}

fn order(text: &str) -> Result<Vec<Order>, String> {
    let known: Vec<&str> = Key::ALL.iter().map(|(name, _)| *name).collect();
    let mut order: Vec<Order> = Vec::new();
    for word in text.split(',').map(str::trim) {
        let (name, descending) = word.strip_prefix('-').map_or((word, false), |name| (name, true));
        let key = Key::ALL.iter().find(|(known, _)| *known == name).map(|(_, key)| *key);
        let key =
            key.ok_or_else(|| format!("must be of {}, each with - before it for the largest first", known.join(", ")))?;
        if order.iter().any(|earlier| earlier.key == key) {
            return Err(format!("names {name} twice"));
        }
        order.push(Order { key, descending });
    }
    if order.len() > MAX_KEYS { Err(format!("must be at most {MAX_KEYS} keys")) } else { Ok(order) }
}

/// Reads a cursor, which comes from outside and is believed nothing.
fn cursor(text: &str) -> Option<Listing> {
    let cursor: Cursor = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
    let fits = cursor.after.len() == cursor.order.len()
        && cursor.order.len() <= MAX_KEYS.saturating_add(1)
        && cursor.order.iter().any(|order| order.key == Key::Id)
        && cursor.order.iter().zip(&cursor.after).all(|(order, place)| match (order.key, place) {
            (Key::Id | Key::Category, Place::Text(text)) => !text.contains('\0'),
            (Key::Difficulty | Key::UsageCount, Place::Whole(_)) => true,
            (Key::Discrimination, Place::Real(value)) => value.is_finite(),
            _ => false,
        });
    let filter = &cursor.filter;
    let lists = [&filter.ids, &filter.categories, &filter.difficulties, &filter.roles, &filter.skills];
    let bounded = lists.iter().all(|list| list.len() <= MAX_VALUES)
        && lists.iter().flat_map(|list| list.iter()).chain(&filter.text).all(|text| !text.contains('\0'));
    let limit = (1..=MAX_LIMIT).contains(&cursor.limit);
    (fits && bounded && limit).then_some(Listing {
        filter: cursor.filter,
        order: cursor.order,
        limit: cursor.limit,
        after: Some(cursor.after),
    })
}

/// A question of a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) text: String,
    pub(crate) category: String,
    pub(crate) difficulty: String,
    /// In alphabetical order.
    pub(crate) roles: Vec<String>,
    /// In alphabetical order.
    pub(crate) skills: Vec<String>,
    pub(crate) usage_count: i64,
    pub(crate) discrimination: f64,
    pub(crate) location: f64,
    #[serde(skip)]
    pub(crate) rank: i64,
}

/// A row of a list: id, text, category, difficulty, usage count, rank, discrimination, location.
pub(crate) type Row = (String, String, String, String, i64, i64, f64, f64);

impl Listed {
    fn place(&self, key: Key) -> Place {
        match key {
            Key::Id => Place::Text(self.id.clone()),
            Key::Category => Place::Text(self.category.clone()),
            Key::Difficulty => Place::Whole(self.rank),
            Key::UsageCount => Place::Whole(self.usage_count),
            Key::Discrimination => Place::Real(self.discrimination),
        }
    }

    /// Puts rows, and the roles and skills that belong to their ids, together.
    pub(crate) fn assemble(rows: Vec<Row>, roles: &[(String, String)], skills: &[(String, String)]) -> Vec<Self> {
        let of = |pairs: &[(String, String)], id: &str| {
            let mut values: Vec<String> =
                pairs.iter().filter(|(owner, _)| owner == id).map(|(_, value)| value.clone()).collect();
            values.sort_unstable();
            values
        };
        rows.into_iter()
            .map(|(id, text, category, difficulty, usage_count, rank, discrimination, location)| Self {
                roles: of(roles, &id),
                skills: of(skills, &id),
                id,
                text,
                category,
                difficulty,
                usage_count,
                discrimination,
                location,
                rank,
            })
            .collect()
    }
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    pub(crate) questions: Vec<Listed>,
    /// Goes on after this page; `null` at the end.
    pub(crate) next: Option<String>,
}

impl Page {
    /// Of questions one more of which was asked for than there is room: whether there is more is then known.
    pub(crate) fn new(listing: &Listing, mut questions: Vec<Listed>) -> Self {
        let limit = usize::try_from(listing.limit).unwrap_or(usize::MAX);
        let more = questions.len() > limit;
        questions.truncate(limit);
        let next = questions.last().filter(|_| more).map(|last| listing.cursor(last));
        Self { questions, next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &[(&str, &str)]) -> Result<Listing, Vec<String>> {
        let pairs: Vec<_> = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Listing::read(&pairs)
            .map_err(|errors| errors.into_iter().map(|error| format!("{} {}", error.field, error.message)).collect())
    }

    fn question() -> Listed {
        let row = ("q".into(), "Why?".into(), "technical".into(), "hard".into(), 7, 3, 1.25, 0.5);
        Listed::assemble(vec![row], &[], &[]).remove(0)
    }

    #[test]
    fn a_cursor_holds_the_whole_query() {
        let listing =
            read(&[("sort", "-usageCount,difficulty,discrimination"), ("role", "qa,backend"), ("text", "İx%")])
                .unwrap();
        let cursor = listing.cursor(&question());
        let next = read(&[("cursor", &cursor)]).unwrap();
        assert_eq!((&next.filter, &next.order, next.limit), (&listing.filter, &listing.order, listing.limit));
        let places = [Place::Whole(7), Place::Whole(3), Place::Real(1.25), Place::Text("q".to_owned())];
        assert_eq!(next.after.as_deref(), Some(places.as_slice()));
    }

    #[test]
    fn every_bad_parameter_is_named() {
        let errors = read(&[
            ("limit", "0"),
            ("sort", "age"),
            ("role", "a,,b"),
            ("colour", "red"),
            ("minUsage", "-1"),
            ("text", " "),
            ("cursor", "x"),
        ])
        .unwrap_err();
        assert_eq!(
            errors,
            [
                "limit must be an integer from 1 to 200",
                "sort must be of id, category, difficulty, usageCount, discrimination, each with - before it for the \
                 largest first",
                "role must be values with commas between",
                "colour is not a known parameter",
                "minUsage must be an integer from 0",
                "text must not be blank",
                "cursor holds the whole query; give nothing beside it",
            ]
        );
    }

    #[test]
    fn a_forged_cursor_is_refused() {
        let forge = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let good = read(&[]).unwrap().cursor(&question());
        assert!(read(&[("cursor", &good)]).is_ok());
        let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(&good).unwrap()).unwrap();
        for (from, to) in [("\"q\"", "7"), ("[\"q\"]", "[]"), ("50", "100000"), ("{", "[")] {
            let forged = plain.replacen(from, to, 1);
            assert_ne!(forged, plain);
            assert!(read(&[("cursor", &forge(&forged))]).is_err(), "{forged}");
        }
        assert!(read(&[("cursor", "%%%")]).is_err());
    }

    #[test]
    fn text_is_found_as_it_is_written() {
        assert_eq!(read(&[("text", "50%_\\A")]).unwrap().pattern().as_deref(), Some("%50\\%\\_\\\\a%"));
    }
}
