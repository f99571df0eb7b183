//! Comparisons of a field with literals, by the type of the field.
//!
//! | values of the field | compared |
//! | --- | --- |
//! | numbers, or texts that all read as numbers | as numbers, exactly |
//! | booleans, or texts that all read as such | as booleans |
//! | texts that all read as dates or times | as points in time |
//! | texts; in formats without types also numbers beside texts | as texts |
//! | anything else | each value as what it is |
//!
//! In a field of mixed values one of another type is unequal to the literal, and has no order with
//! it. A [`Note`] counts the rows that a comparison leaves out in this way.

use super::literal::Literal;
use super::names::Field;
use super::{Compiled, Note, shorten};
use crate::store::fields::{FieldCatalog, FieldClass, FieldTypes};
use crate::store::value::boolean;
use crate::store::value::time::Time;
use rusqlite::types::Value as Bound;

/// The end of a message about values that are unequal to a literal because of their type.
const DIFFERENT: &str = ": it counts as different";

/// Labels of JSON types, and the kinds of literals that they can be compared with.
const LABELS: &str = "WHEN 'text' THEN 'text' WHEN 'integer' THEN 'a number' WHEN 'real' THEN \
                      'a number' WHEN 'true' THEN 'a boolean' WHEN 'false' THEN 'a boolean' WHEN \
                      'array' THEN 'an array' WHEN 'object' THEN 'an object' END";

/// Makes the SQL of comparisons, and collects its values and notes.
pub(super) struct Comparer<'a> {
    fields: &'a FieldCatalog,
    pub(super) values: Vec<Bound>,
    pub(super) notes: Vec<Note>,
}

impl<'a> Comparer<'a> {
    pub(super) fn new(fields: &'a FieldCatalog) -> Self {
        Self { fields, values: Vec::new(), notes: Vec::new() }
    }

    /// Adds a bound value; returns its parameter.
    pub(super) fn bind(&mut self, value: Bound) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }

    /// SQL of a comparison. `op` is one of `=`, `<>`, `<`, `<=`, `>`, `>=`.
    pub(super) fn compare(&mut self, field: &Field, op: &str, literal: &Literal) -> Compiled {
        let is_equality = matches!(op, "=" | "<>");
        match field.types.class() {
            FieldClass::Numbers => {
                let number = number(field, literal)?;
                Ok(self.compare_number(field, op, number))
            }
            FieldClass::Booleans => {
                let wanted = Bound::Integer(i64::from(boolean_literal(field, literal)?));
                let value = self.boolean_of(field);
                Ok(format!("{value} {op} {}", self.bind(wanted)))
            }
            FieldClass::Times => self.compare_time(field, op, literal),
            FieldClass::Texts => match literal {
                Literal::Text(text) => {
                    if !is_equality && has_times(&field.types) && literal.as_time().is_some() {
                        self.note_no_times(field, "was compared as text, as all of the field is");
                    }
                    let value = self.text(field);
                    Ok(format!("{value} {op} {}", self.bind(Bound::Text(text.clone()))))
                }
                Literal::Number(number) if has_numbers(&field.types) => {
                    let compared = self.compare_number(field, op, number);
                    self.note_no_numbers(field, is_equality);
                    Ok(self.of_reading(field, "is_number", &compared, unequal(op)))
                }
                Literal::Time(_) if has_times(&field.types) => {
                    let compared = self.compare_time(field, op, literal)?;
                    let different = if is_equality { DIFFERENT } else { "" };
                    self.note_no_times(field, &format!("was not compared with a time{different}"));
                    Ok(self.of_reading(field, "is_time", &compared, unequal(op)))
                }
                other => Err(self.no_such_type(field, other)),
            },
            FieldClass::Mixed => {
                let compared = match literal {
                    Literal::Number(number) => {
                        self.check_seen(field, literal, field.types.numbers)?;
                        self.compare_number(field, op, number)
                    }
                    Literal::Boolean(wanted) => {
                        self.check_seen(field, literal, field.types.booleans)?;
                        let value = self.extract(field);
                        format!("{value} {op} {}", self.bind(Bound::Integer(i64::from(*wanted))))
                    }
                    Literal::Text(_) | Literal::Time(_) => {
                        self.check_seen(field, literal, field.types.texts)?;
                        self.compare_mixed_text(field, op, literal)?
                    }
                };
                self.note_types(field, literal, is_equality);
                Ok(self.of_type(field, literal, &compared, unequal(op)))
            }
        }
    }

    /// SQL of `field IN (...)` with literals of one type.
    pub(super) fn in_list(&mut self, field: &Field, list: &[Literal]) -> Compiled {
        let Some(first) = list.first() else { return Ok("0".to_owned()) };
        let class = field.types.class();
        let is_numeric = match class {
            FieldClass::Numbers => true,
            FieldClass::Texts => matches!(first, Literal::Number(_)) && has_numbers(&field.types),
            FieldClass::Mixed => matches!(first, Literal::Number(_)),
            FieldClass::Booleans | FieldClass::Times => false,
        };
        let is_time = match class {
            FieldClass::Times => true,
            FieldClass::Mixed => {
                field.types.are_texts_times() && list.iter().all(|l| l.as_time().is_some())
            }
            _ => false,
        };
        let in_bound = |this: &mut Self, value: String, bound: Vec<Bound>| {
            // The whole list is one parameter.
            let array: serde_json::Value = bound.into_iter().map(to_json).collect();
            let array = this.bind(Bound::Text(array.to_string()));
            format!("{value} IN (SELECT value FROM json_each({array}))")
        };
        let compared = if is_numeric {
            let numbers: Vec<&str> =
                list.iter().map(|l| number(field, l)).collect::<Compiled<_>>()?;
            let bound = numbers.iter().map(|n| Literal::Number((*n).to_owned()).bound());
            match bound.collect::<Option<Vec<Bound>>>().filter(|_| !field.has_long_numbers()) {
                Some(bound) => {
                    let value = self.extract(field);
                    in_bound(self, value, bound)
                }
                None => self.call_with_list("number_in", field, &numbers),
            }
        } else if is_time {
            let times: Vec<(&str, Time)> =
                list.iter().map(|l| time(field, l)).collect::<Compiled<_>>()?;
            times.iter().for_each(|(_, time)| self.note_offsets(field, *time, true));
            let texts: Vec<&str> = times.iter().map(|(text, _)| *text).collect();
            self.call_with_list("time_in", field, &texts)
        } else {
            let (value, wanted) = match (class, first) {
                (FieldClass::Booleans, _) => {
                    let wanted = list.iter().map(|l| boolean_literal(field, l).map(i64::from));
                    let wanted = wanted.map(|wanted| wanted.map(Bound::Integer));
                    (self.boolean_of(field), wanted.collect::<Compiled<_>>()?)
                }
                (FieldClass::Texts, Literal::Text(_)) => {
                    (self.text(field), list.iter().filter_map(Literal::bound).collect())
                }
                (FieldClass::Mixed, Literal::Text(_) | Literal::Boolean(_)) => {
                    (self.extract(field), list.iter().filter_map(Literal::bound).collect())
                }
                (_, other) => return Err(self.no_such_type(field, other)),
            };
            in_bound(self, value, wanted)
        };
        if class == FieldClass::Texts && is_numeric {
            self.note_no_numbers(field, true);
            return Ok(self.of_reading(field, "is_number", &compared, Some(false)));
        }
        if class != FieldClass::Mixed {
            return Ok(compared);
        }
        let seen = match first {
            Literal::Number(_) => field.types.numbers,
            Literal::Boolean(_) => field.types.booleans,
            Literal::Text(_) | Literal::Time(_) => field.types.texts,
        };
        self.check_seen(field, first, seen)?;
        self.note_types(field, first, true);
        Ok(self.of_type(field, first, &compared, Some(false)))
    }

    /// The text of a field for LIKE.
    pub(super) fn text_for_pattern(&mut self, field: &Field) -> Compiled {
        let FieldTypes { texts, numbers, untyped_numbers, .. } = field.types;
        if texts == 0 && untyped_numbers == 0 {
            let (name, types) = (&field.name, field.types.describe());
            return Err(format!("field '{name}' holds {types}; LIKE compares text"));
        }
        // Numbers of typed formats have no text of their own.
        if field.types.class() == FieldClass::Mixed || numbers > untyped_numbers {
            let pattern = Literal::Text(String::new());
            self.note_types(field, &pattern, false);
            let value = self.extract(field);
            return Ok(self.of_type(field, &pattern, &value, None));
        }
        Ok(self.text(field))
    }

    /// The value of a field of booleans, 1 or 0.
    fn boolean_of(&mut self, field: &Field) -> String {
        match field.types.texts {
            0 => self.extract(field),
            _ => format!("boolean_of({})", self.json_text(field)),
        }
    }

    fn compare_number(&mut self, field: &Field, op: &str, number: &str) -> String {
        let native = Literal::Number(number.to_owned()).bound();
        match native.filter(|_| !field.has_long_numbers()) {
            Some(bound) => {
                let value = self.extract(field);
                format!("{value} {op} {}", self.bind(bound))
            }
            None => {
                let value = self.json_text(field);
                let number = self.bind(Bound::Text(number.to_owned()));
                format!("compare_number({value}, {number}) {op} 0")
            }
        }
    }

    fn compare_time(&mut self, field: &Field, op: &str, literal: &Literal) -> Compiled {
        let is_equality = matches!(op, "=" | "<>");
        // The start of a year or month, where nothing else can be meant.
        let start = match literal {
            Literal::Text(text) if matches!(op, ">=" | "<") => start_of(text),
            _ => None,
        };
        let literal = start.map_or_else(|| literal.clone(), Literal::Time);
        let (text, time) = time(field, &literal)?;
        self.note_offsets(field, time, is_equality);
        let FieldTypes { times, zoned_times, .. } = field.types;
        if times + zoned_times == 0 && time.is_date && field.types.are_texts_times() {
            // Dates are in the order of their texts.
            let value = self.extract(field);
            return Ok(format!("{value} {op} {}", self.bind(Bound::Text(text.to_owned()))));
        }
        let value = self.json_text(field);
        let text = self.bind(Bound::Text(text.to_owned()));
        Ok(format!("compare_time({value}, {text}, {}) {op} 0", u8::from(is_equality)))
    }

    /// A text literal beside the texts of a mixed field.
    fn compare_mixed_text(&mut self, field: &Field, op: &str, literal: &Literal) -> Compiled {
        if field.types.are_texts_times() && literal.as_time().is_some() {
            return self.compare_time(field, op, literal);
        }
        let Literal::Text(text) = literal else { return Err(self.no_such_type(field, literal)) };
        let value = self.extract(field);
        Ok(format!("{value} {op} {}", self.bind(Bound::Text(text.clone()))))
    }

    /// A condition for the values of a literal's type. Values of other types give `other`.
    fn of_type(
        &mut self,
        field: &Field,
        literal: &Literal,
        condition: &str,
        other: Option<bool>,
    ) -> String {
        let json_types = match literal {
            Literal::Text(_) | Literal::Time(_) => "'text'",
            Literal::Number(_) => "'integer', 'real'",
            Literal::Boolean(_) => "'true', 'false'",
        };
        let json_type = self.json("json_type", field);
        let other = other.map_or(String::new(), |other| {
            format!(" WHEN {json_type} <> 'null' THEN {}", u8::from(other))
        });
        format!("CASE WHEN {json_type} IN ({json_types}) THEN {condition}{other} END")
    }

    fn call_with_list(&mut self, function: &str, field: &Field, texts: &[&str]) -> String {
        let value = self.json_text(field);
        let array = self.bind(Bound::Text(serde_json::json!(texts).to_string()));
        format!("{function}({value}, {array})")
    }

    /// Refuses a literal of a type that no value of a mixed field has.
    fn check_seen(&self, field: &Field, literal: &Literal, seen: u64) -> Compiled<()> {
        let FieldTypes { texts, numbers, booleans, arrays, objects, .. } = field.types;
        match seen == 0 && texts + numbers + booleans + arrays + objects > 0 {
            true => Err(self.no_such_type(field, literal)),
            false => Ok(()),
        }
    }

    /// The error for a literal of a type that no value of the field has.
    fn no_such_type(&self, field: &Field, literal: &Literal) -> String {
        let FieldTypes { texts, numbers, arrays, .. } = field.types;
        let remedy = if arrays > 0 {
            format!("; use `{} CONTAINS value`", field.name)
        } else if numbers > 0 && matches!(literal, Literal::Text(_)) {
            "; write the value without quotes".to_owned()
        } else if texts > 0 && matches!(literal, Literal::Number(_)) {
            "; write the value in single quotes".to_owned() + self.hint()
        } else {
            String::new()
        };
        field.refuse(literal, &remedy)
    }

    /// The hint for indexes whose catalogue does not know what texts read as.
    fn hint(&self) -> &'static str {
        match self.fields.counts_readings() {
            true => "",
            false => " (`warpseek compact` finds out which texts of this older index are numbers)",
        }
    }

    /// A condition for the values of a field of texts of which the function `reading` is true.
    /// Others give `other`.
    fn of_reading(
        &mut self,
        field: &Field,
        reading: &str,
        condition: &str,
        other: Option<bool>,
    ) -> String {
        let value = self.json_text(field);
        let other = other.map_or("NULL".to_owned(), |other| u8::from(other).to_string());
        format!("CASE {reading}({value}) WHEN 1 THEN {condition} WHEN 0 THEN {other} END")
    }

    /// Notes the texts of a field that are no numbers.
    fn note_no_numbers(&mut self, field: &Field, is_equality: bool) {
        let different = if is_equality { DIFFERENT } else { "" };
        self.note(field, &format!("was not compared with a number{different}"), |this| {
            format!("CASE WHEN NOT is_number({}) THEN 'text' END", this.json_text(field))
        });
    }

    /// Notes the texts of a field that are no dates or times.
    fn note_no_times(&mut self, field: &Field, end: &str) {
        self.note(field, end, |this| {
            let value = this.json_text(field);
            format!("CASE WHEN NOT is_time({value}) THEN 'text that is no time' END")
        });
    }

    /// Notes the values of other types than the literal's.
    fn note_types(&mut self, field: &Field, literal: &Literal, is_equality: bool) {
        let kind = match literal {
            Literal::Time(_) => "text",
            other => other.type_name(),
        };
        let different = if is_equality { DIFFERENT } else { "" };
        let end = format!("was not compared with {kind}{different}{}", self.hint());
        self.note(field, &end, |this| {
            let json_type = this.json("json_type", field);
            format!("nullif(CASE {json_type} {LABELS}, '{kind}')")
        });
    }

    /// Notes the times that have an offset where the literal has none, or the other way round.
    fn note_offsets(&mut self, field: &Field, literal: Time, is_equality: bool) {
        let FieldTypes { dates, times, zoned_times, .. } = field.types;
        let others = if literal.zoned { dates + times } else { zoned_times };
        if others == 0 {
            return;
        }
        let (held, own) = match literal.zoned {
            true => ("a time without an offset", "a time with one"),
            false => ("a time with an offset", "a time without one"),
        };
        let end = match is_equality {
            true => format!("was not compared with {own}"),
            false => format!("was compared as UTC with {own}"),
        };
        self.note(field, &end, |this| {
            let value = this.json_text(field);
            format!("CASE is_zoned({value}) WHEN {} THEN '{held}' END", u8::from(!literal.zoned))
        });
    }

    /// Adds a note, if it is not there yet. `label` is SQL with values of its own.
    fn note(&mut self, field: &Field, end: &str, label: impl FnOnce(&mut Self) -> String) {
        let is_known = |note: &Note| note.field == field.name && note.end == end;
        if self.notes.iter().any(is_known) {
            return;
        }
        let values = std::mem::take(&mut self.values);
        let sql = label(self);
        let values = std::mem::replace(&mut self.values, values);
        let (field, end) = (field.name.clone(), end.to_owned());
        self.notes.push(Note { field, end, sql, values });
    }

    /// The value of a field in SQLite's types.
    pub(super) fn extract(&mut self, field: &Field) -> String {
        self.json("json_extract", field)
    }

    /// The text of a field: that of a number is as it was written.
    fn text(&mut self, field: &Field) -> String {
        let value = self.extract(field);
        if field.types.numbers == 0 {
            return value;
        }
        let (json_type, json) = (self.json("json_type", field), self.json_text(field));
        format!("CASE {json_type} WHEN 'text' THEN {value} WHEN 'null' THEN NULL ELSE {json} END")
    }

    /// The JSON text of a field's value, with the first path that exists.
    fn json_text(&mut self, field: &Field) -> String {
        if let Some(column) = field.column {
            return column.to_owned();
        }
        let call = |path: &String| format!("(d.metadata -> {})", self.bind(path.clone().into()));
        first_of(field.paths.iter().map(call).collect())
    }

    /// SQL call of a JSON function with the first path of a field that exists; for a built-in field
    /// its column.
    fn json(&mut self, function: &str, field: &Field) -> String {
        if let Some(column) = field.column {
            return column.to_owned();
        }
        let call =
            |path: &String| format!("{function}(d.metadata, {})", self.bind(path.clone().into()));
        first_of(field.paths.iter().map(call).collect())
    }
}

fn first_of(mut calls: Vec<String>) -> String {
    if calls.len() == 1 { calls.remove(0) } else { format!("coalesce({})", calls.join(", ")) }
}

/// True if a field of texts has numbers, or texts that read as numbers.
fn has_numbers(types: &FieldTypes) -> bool {
    types.numbers + types.numeric_texts > 0
}

/// True if a field of texts has some that are dates or times.
fn has_times(types: &FieldTypes) -> bool {
    types.dates + types.times + types.zoned_times > 0
}

/// The result of `=` and `<>` for values of different types.
fn unequal(op: &str) -> Option<bool> {
    match op {
        "=" => Some(false),
        "<>" => Some(true),
        _ => None,
    }
}

/// The literal for a field of numbers.
fn number<'a>(field: &Field, literal: &'a Literal) -> Compiled<&'a str> {
    literal.as_number().ok_or_else(|| match literal {
        Literal::Text(text) => {
            format!("field '{}' holds numbers, and '{}' is none", field.name, shorten(text, 40))
        }
        other => field.refuse(other, ""),
    })
}

/// The literal for a field of booleans.
fn boolean_literal(field: &Field, literal: &Literal) -> Compiled<bool> {
    let wanted = match literal {
        Literal::Boolean(wanted) => Some(*wanted),
        Literal::Text(text) => boolean(text),
        Literal::Number(_) | Literal::Time(_) => None,
    };
    wanted.ok_or_else(|| field.refuse(literal, "; compare it with TRUE or FALSE"))
}

/// The literal for a field of times.
fn time<'a>(field: &Field, literal: &'a Literal) -> Compiled<(&'a str, Time)> {
    literal.as_time().ok_or_else(|| match literal {
        Literal::Text(text) => format!(
            "field '{}' holds dates or times, and '{}' is none: write '2024-01-31' or '2024-01-31 \
             12:00:00', or use LIKE",
            field.name,
            shorten(text, 40)
        ),
        other => field.refuse(other, ""),
    })
}

/// The first day of a year, `2024`, or of a month, `2024-05`.
fn start_of(text: &str) -> Option<String> {
    let date = match text.len() {
        4 => format!("{text}-01-01"),
        7 => format!("{text}-01"),
        _ => return None,
    };
    Time::parse(&date).map(|_| date)
}

fn to_json(value: Bound) -> serde_json::Value {
    match value {
        Bound::Integer(i) => i.into(),
        Bound::Real(r) => r.into(),
        Bound::Text(t) => t.into(),
        _ => serde_json::Value::Null,
    }
}
