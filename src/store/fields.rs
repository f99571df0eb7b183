//! The catalogue of metadata fields: their names, the JSON types under each, and the readings of
//! texts. The counts are those of the live documents, and give each field the type by which it is
//! compared.

use super::database::{Database, SCHEMA};
use super::row::DocumentTraits;
use super::value::number::Number;
use super::value::{Reading, boolean};
use crate::error::Result;
use rusqlite::{Connection, ToSql};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Number of values of each JSON type in a field, and of the texts that read as something else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldTypes {
    /// Strings.
    pub texts: u64,
    /// Integers and floats.
    pub numbers: u64,
    /// `true` and `false`.
    pub booleans: u64,
    /// Arrays.
    pub arrays: u64,
    /// Objects; their members are catalogued as `field.member`.
    pub objects: u64,
    /// Nulls.
    pub nulls: u64,
    /// Texts that are written as a number is, such as `19.90` and `1e-05`, not `02139`.
    pub numeric_texts: u64,
    /// Texts that are `true` or `false` in any case.
    pub boolean_texts: u64,
    /// Texts that are a date.
    pub dates: u64,
    /// Texts that are a date and a time without an offset from UTC.
    pub times: u64,
    /// Texts that are a date and a time with an offset from UTC.
    pub zoned_times: u64,
    /// Integers above the largest signed one of 64 bits.
    pub large_integers: u64,
    /// Numbers from formats without types, such as csv, where each may be a text of digits.
    pub untyped_numbers: u64,
}

/// The most fields of a document's metadata, members of objects included.
pub(super) const MAX_FIELDS: usize = 4096;

/// The number of fields of metadata, members of objects included.
pub(super) fn n_fields(metadata: &Map<String, Value>) -> usize {
    let inner = |value: &Value| value.as_object().map_or(0, n_fields);
    metadata.len() + metadata.values().map(inner).sum::<usize>()
}

/// The columns of the table `field` behind the name: a [`FieldTypes`] in the order of its fields.
const COLUMNS: [&str; 13] = [
    "texts",
    "numbers",
    "booleans",
    "arrays",
    "objects",
    "nulls",
    "numeric_texts",
    "boolean_texts",
    "dates",
    "times",
    "zoned_times",
    "large_integers",
    "untyped_numbers",
];

/// The table `field` of indexes that earlier versions made: it counts JSON types alone, and deleted
/// documents are in its counts.
pub(super) const EARLIER_TABLE: &str = "CREATE TABLE field (
    name     TEXT PRIMARY KEY,
    texts    INTEGER NOT NULL DEFAULT 0,
    numbers  INTEGER NOT NULL DEFAULT 0,
    booleans INTEGER NOT NULL DEFAULT 0,
    arrays   INTEGER NOT NULL DEFAULT 0,
    objects  INTEGER NOT NULL DEFAULT 0,
    nulls    INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID";

/// Columns of [`EARLIER_TABLE`] behind the name.
const EARLIER_COLUMNS: usize = 6;

/// The type by which the values of a field are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldClass {
    /// Numbers, and texts that all read as numbers.
    Numbers,
    /// Truth values, and texts that all read as booleans.
    Booleans,
    /// Texts that all read as dates or times.
    Times,
    /// Texts, and numbers of formats without types, which are texts of digits then.
    Texts,
    /// Anything else: each value has a type of its own.
    Mixed,
}

impl FieldTypes {
    /// The type by which the values are compared.
    pub(super) fn class(&self) -> FieldClass {
        let Self { texts, numbers, booleans, arrays, objects, .. } = *self;
        if arrays + objects > 0 || texts + numbers + booleans == 0 {
            return FieldClass::Mixed;
        }
        if booleans == 0 && self.numeric_texts == texts {
            return FieldClass::Numbers;
        }
        if numbers == 0 && self.boolean_texts == texts {
            return FieldClass::Booleans;
        }
        if numbers + booleans == 0 && self.are_texts_times() {
            return FieldClass::Times;
        }
        match booleans == 0 && self.untyped_numbers == numbers {
            true => FieldClass::Texts,
            false => FieldClass::Mixed,
        }
    }

    /// True if there are texts and all of them are dates or times.
    pub(super) fn are_texts_times(&self) -> bool {
        self.texts > 0 && self.dates + self.times + self.zoned_times == self.texts
    }

    /// Counts a value.
    fn count(&mut self, value: &Value, is_untyped: bool) {
        *match value {
            Value::String(_) => &mut self.texts,
            Value::Number(_) => &mut self.numbers,
            Value::Bool(_) => &mut self.booleans,
            Value::Array(_) => &mut self.arrays,
            Value::Object(_) => &mut self.objects,
            Value::Null => &mut self.nulls,
        } += 1;
        match value {
            Value::Number(number) => {
                self.untyped_numbers += u64::from(is_untyped);
                self.large_integers += u64::from(number.is_u64() && !number.is_i64());
            }
            Value::String(text) => match Reading::of(text) {
                None => {}
                Some(Reading::Number) => self.numeric_texts += 1,
                Some(Reading::Boolean) => self.boolean_texts += 1,
                Some(Reading::Date) => self.dates += 1,
                Some(Reading::NaiveTime) => self.times += 1,
                Some(Reading::ZonedTime) => self.zoned_times += 1,
            },
            _ => {}
        }
    }

    fn counts(&self) -> [u64; COLUMNS.len()] {
        [
            self.texts,
            self.numbers,
            self.booleans,
            self.arrays,
            self.objects,
            self.nulls,
            self.numeric_texts,
            self.boolean_texts,
            self.dates,
            self.times,
            self.zoned_times,
            self.large_integers,
            self.untyped_numbers,
        ]
    }

    fn from_counts(counts: [u64; COLUMNS.len()]) -> Self {
        let [texts, numbers, booleans, arrays, objects, nulls, rest @ ..] = counts;
        let [numeric_texts, boolean_texts, dates, times, zoned_times, rest @ ..] = rest;
        let [large_integers, untyped_numbers] = rest;
        Self {
            texts,
            numbers,
            booleans,
            arrays,
            objects,
            nulls,
            numeric_texts,
            boolean_texts,
            dates,
            times,
            zoned_times,
            large_integers,
            untyped_numbers,
        }
    }

    /// The types seen, most frequent first, and the one of comparisons where it is another:
    /// `text, null, compared as numbers`.
    pub fn describe(&self) -> String {
        let mut seen = [
            ("text", self.texts),
            ("number", self.numbers),
            ("boolean", self.booleans),
            ("array", self.arrays),
            ("object", self.objects),
            ("null", self.nulls),
        ];
        seen.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        let seen = seen.iter().filter(|&&(_, n)| n > 0).map(|&(name, _)| name);
        let compared = match self.class() {
            FieldClass::Numbers if self.texts > 0 => ", compared as numbers",
            FieldClass::Booleans if self.texts > 0 => ", compared as booleans",
            FieldClass::Times => ", compared as times",
            FieldClass::Texts if self.numbers > 0 => ", compared as text",
            _ => "",
        };
        seen.collect::<Vec<_>>().join(", ") + compared
    }
}

/// All fields by name; members of nested objects under dotted names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, FieldTypes>", into = "BTreeMap<String, FieldTypes>")]
pub struct FieldCatalog {
    fields: BTreeMap<String, FieldTypes>,
    /// True if an earlier version counted, which did not read texts.
    is_earlier: bool,
}

/// Depth to which nested objects are catalogued.
const MAX_DEPTH: usize = 4;

impl From<BTreeMap<String, FieldTypes>> for FieldCatalog {
    fn from(fields: BTreeMap<String, FieldTypes>) -> Self {
        Self { fields, is_earlier: false }
    }
}

impl From<FieldCatalog> for BTreeMap<String, FieldTypes> {
    fn from(catalog: FieldCatalog) -> Self {
        catalog.fields
    }
}

impl FieldCatalog {
    /// The types seen under `name`.
    pub fn get(&self, name: &str) -> Option<&FieldTypes> {
        self.fields.get(name)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str)
    }

    /// All names with their types, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FieldTypes)> {
        self.fields.iter().map(|(name, types)| (name.as_str(), types))
    }

    /// True if the catalogue knows which texts read as numbers, booleans, dates and times. An
    /// earlier version made it otherwise, and `compact` makes it anew.
    pub fn counts_readings(&self) -> bool {
        !self.is_earlier
    }

    /// Up to three names that resemble `name`, nearest first.
    pub fn near(&self, name: &str) -> Vec<&str> {
        let wanted = name.to_lowercase();
        let mut scored: Vec<(f64, &str)> = self
            .names()
            .map(|n| (strsim::jaro_winkler(&wanted, &n.to_lowercase()), n))
            .filter(|&(likeness, _)| likeness > 0.7)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().take(3).map(|(_, n)| n).collect()
    }

    /// Gives the values of a document from a format without types the types of their fields. A
    /// number that a float cannot hold exactly stays text.
    pub(super) fn give_types(&self, metadata: &mut Map<String, Value>) {
        for (name, value) in metadata {
            let class = self.get(name).map(FieldTypes::class);
            let typed = match (class, &*value) {
                (Some(FieldClass::Texts), Value::Number(number)) => Some(number.to_string().into()),
                (Some(FieldClass::Numbers), Value::String(text)) => Number::parse(text)
                    .filter(|number| number.fits_float())
                    .and_then(|_| serde_json::from_str(text).ok()),
                (Some(FieldClass::Booleans), Value::String(text)) => boolean(text).map(Value::Bool),
                _ => None,
            };
            if let Some(typed) = typed {
                *value = typed;
            }
        }
    }

    /// Adds the counts of another catalogue.
    pub(super) fn add(&mut self, other: &Self) {
        for (name, types) in &other.fields {
            let known = self.fields.entry(name.clone()).or_default();
            let (mut counts, added) = (known.counts(), types.counts());
            counts.iter_mut().zip(added).for_each(|(count, n)| *count += n);
            *known = FieldTypes::from_counts(counts);
        }
        self.is_earlier |= other.is_earlier;
    }

    /// Counts the fields of one document. `is_untyped`: it came from a format without types.
    pub(super) fn count(&mut self, metadata: &Map<String, Value>, is_untyped: bool) {
        self.count_members("", metadata, is_untyped, 1);
    }

    fn count_members(
        &mut self,
        prefix: &str,
        members: &Map<String, Value>,
        is_untyped: bool,
        depth: usize,
    ) {
        for (name, value) in members {
            let name = format!("{prefix}{name}");
            if let Value::Object(inner) = value
                && depth < MAX_DEPTH
            {
                self.count_members(&format!("{name}."), inner, is_untyped, depth + 1);
            }
            self.fields.entry(name).or_default().count(value, is_untyped);
        }
    }

    /// The catalogue in the database.
    pub(super) fn read(database: &Database) -> Result<Self> {
        let is_earlier = !Self::is_current(database)?;
        let n = if is_earlier { EARLIER_COLUMNS } else { COLUMNS.len() };
        let sql = format!("SELECT name, {} FROM field", COLUMNS[..n].join(", "));
        let fields = database.collect(&sql, [], |r| {
            let mut counts = [0; COLUMNS.len()];
            for (i, count) in counts[..n].iter_mut().enumerate() {
                *count = r.get(i + 1)?;
            }
            Ok((r.get(0)?, FieldTypes::from_counts(counts)))
        })?;
        Ok(Self { fields: fields.into_iter().collect(), is_earlier })
    }

    /// False if an earlier version made the index, so that texts are not known to read as numbers
    /// or times.
    pub(super) fn is_current(database: &Database) -> Result<bool> {
        database.run(has_current_table)
    }

    /// Changes the catalogue in the database by the fields of added and of deleted documents. One
    /// of an earlier version is made anew from the live documents, which are changed already.
    pub(super) fn update(conn: &Connection, added: &Self, deleted: &Self) -> rusqlite::Result<()> {
        if !has_current_table(conn)? {
            return Self::rebuild(conn);
        }
        let set = |sign: char| {
            let change = |name: &&str| format!("{name} = max({name} {sign} excluded.{name}, 0)");
            COLUMNS.iter().map(change).collect::<Vec<_>>().join(", ")
        };
        let places: Vec<String> = (1..=COLUMNS.len() + 1).map(|i| format!("?{i}")).collect();
        for (catalog, sign) in [(added, '+'), (deleted, '-')] {
            let mut change = conn.prepare_cached(&format!(
                "INSERT INTO field (name, {}) VALUES ({}) ON CONFLICT (name) DO UPDATE SET {}",
                COLUMNS.join(", "),
                places.join(", "),
                set(sign)
            ))?;
            for (name, types) in &catalog.fields {
                let counts = types.counts();
                let counts = counts.iter().map(|count| count as &dyn ToSql);
                let values: Vec<&dyn ToSql> =
                    std::iter::once(name as &dyn ToSql).chain(counts).collect();
                change.execute(&values[..])?;
            }
        }
        // A field without values in live documents is unknown.
        let sql = "DELETE FROM field
                   WHERE texts + numbers + booleans + arrays + objects + nulls = 0";
        conn.execute(sql, []).map(drop)
    }

    /// Makes the table and its content anew from the live documents.
    pub(super) fn rebuild(conn: &Connection) -> rusqlite::Result<()> {
        let table = SCHEMA.split_inclusive(';').find(|sql| sql.contains("CREATE TABLE field "));
        conn.execute_batch("DROP TABLE IF EXISTS field;")?;
        conn.execute_batch(table.unwrap_or_default())?;
        let mut fields = Self::default();
        let sql = "SELECT json(metadata), embed_title FROM document WHERE dead = 0";
        let mut documents = conn.prepare(sql)?;
        let mut documents = documents.query([])?;
        while let Some(document) = documents.next()? {
            let metadata = document.get_ref(0)?.as_str()?;
            let traits = DocumentTraits::from_bits(document.get(1)?);
            fields.count(&serde_json::from_str(metadata).unwrap_or_default(), traits.is_untyped);
        }
        Self::update(conn, &fields, &Self::default())
    }
}

fn has_current_table(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) FROM pragma_table_info('field')";
    conn.query_row(sql, [], |r| r.get(0)).map(|n: usize| n > COLUMNS.len())
}
