//! Rows put together from their columns.

use parquet::basic::Repetition;
use serde_json::{Map, Value};

use super::columns::{LeafColumn, Levels};
use super::schema::{Nesting, PlannedField};
use super::substitute::Substitute;

/// Assembles the value of one top-level field in the current row.
pub(super) struct FieldAssembler<'a> {
    /// The columns of the field, in the order of the schema.
    columns: &'a mut [LeafColumn],
    /// The column that comes next in the schema.
    next: usize,
    /// The names of structs' fields down to the present one.
    path: Vec<&'a str>,
    /// Values that others stand for, by the dotted names of their fields.
    substitutes: Vec<(String, Substitute)>,
}

/// The value of a field, and the substitutes in it.
pub(super) type Assembled = (Value, Vec<(String, Substitute)>);

impl<'a> FieldAssembler<'a> {
    /// The value of `field`, whose columns these are. An error tells that the columns are damaged.
    pub(super) fn assemble(
        field: &'a PlannedField,
        columns: &'a mut [LeafColumn],
    ) -> Result<Assembled, String> {
        let path = vec![field.name.as_str()];
        let mut this = Self { columns, next: 0, path, substitutes: Vec::new() };
        let value = this.field(field, (0, 0))?;
        Ok((value, this.substitutes))
    }

    /// The values of a struct's fields.
    ///
    /// `levels` are those of the struct's values: zero for a row, one more definition level inside
    /// each optional field, one more of both inside each repeated field.
    fn object(
        &mut self,
        fields: &'a [PlannedField],
        levels: Levels,
    ) -> Result<Map<String, Value>, String> {
        let mut object = Map::with_capacity(fields.len());
        for field in fields {
            self.path.push(&field.name);
            object.insert(field.name.clone(), self.field(field, levels)?);
            self.path.pop();
        }
        Ok(object)
    }

    /// The value of a field. `levels` are those of the struct around it.
    fn field(&mut self, field: &'a PlannedField, levels: Levels) -> Result<Value, String> {
        let (rep, def) = levels;
        match field.repetition {
            Repetition::REQUIRED => self.value(field, levels),
            Repetition::OPTIONAL if self.levels().is_some_and(|next| next.1 <= def) => {
                self.skip(field);
                Ok(Value::Null)
            }
            Repetition::OPTIONAL => self.value(field, (rep, def + 1)),
            Repetition::REPEATED => {
                let levels = (rep + 1, def + 1);
                self.list(&[field], levels, |this| this.value(field, levels))
            }
        }
    }

    /// The value of a field that is there. `levels` are its own.
    fn value(&mut self, field: &'a PlannedField, levels: Levels) -> Result<Value, String> {
        let inner = (levels.0 + 1, levels.1 + 1);
        match &field.nesting {
            Nesting::Leaf => {
                self.next += 1;
                let column = self.columns.get_mut(self.next - 1).ok_or("the column is missing")?;
                Ok(column.take()?.unwrap_or_else(|substitute| self.substituted(substitute)))
            }
            Nesting::Struct(fields) => self.object(fields, levels).map(Value::Object),
            Nesting::List(entry) => self.list(&[entry], inner, |this| this.value(entry, inner)),
            Nesting::WrappedList(element) => {
                self.list(&[element], inner, |this| this.field(element, inner))
            }
            Nesting::Map(key, value) => {
                let mut entries = Vec::new();
                self.each(&[key, value], inner, |this| {
                    entries.push((this.field(key, inner)?, this.field(value, inner)?));
                    Ok(())
                })?;
                Ok(map(entries).unwrap_or_else(|substitute| self.substituted(substitute)))
            }
        }
    }

    fn substituted(&mut self, mut substitute: Substitute) -> Value {
        let value = substitute.value.take();
        self.substitutes.push((self.path.join("."), substitute));
        value
    }

    fn list(
        &mut self,
        entry: &[&PlannedField],
        levels: Levels,
        mut item: impl FnMut(&mut Self) -> Result<Value, String>,
    ) -> Result<Value, String> {
        let mut items = Vec::new();
        self.each(entry, levels, |this| {
            items.push(item(this)?);
            Ok(())
        })?;
        Ok(Value::Array(items))
    }

    /// Calls `read` for each entry of a repeated field, which has these fields. `levels` are those
    /// of the entries.
    fn each(
        &mut self,
        entry: &[&PlannedField],
        levels: Levels,
        mut read: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.levels().is_some_and(|next| next.1 < levels.1) {
            entry.iter().for_each(|field| self.skip(field));
            return Ok(());
        }
        let first = self.next;
        loop {
            read(self)?;
            let next = self.columns.get(first).and_then(LeafColumn::levels);
            if next.is_none_or(|next| next.0 != levels.0) {
                return Ok(());
            }
            self.next = first;
        }
    }

    /// The levels of the next value in the next column.
    fn levels(&self) -> Option<Levels> {
        self.columns.get(self.next)?.levels()
    }

    /// Passes a null in all columns of a field.
    fn skip(&mut self, field: &PlannedField) {
        match &field.nesting {
            Nesting::Leaf => {
                self.columns.get_mut(self.next).into_iter().for_each(LeafColumn::skip);
                self.next += 1;
            }
            Nesting::Struct(fields) => fields.iter().for_each(|field| self.skip(field)),
            Nesting::List(entry) | Nesting::WrappedList(entry) => self.skip(entry),
            Nesting::Map(key, value) => {
                self.skip(key);
                self.skip(value);
            }
        }
    }
}

/// The entries of a map as an object, or as text if a key stands there twice.
fn map(entries: Vec<(Value, Value)>) -> Result<Value, Substitute> {
    let mut object = Map::with_capacity(entries.len());
    for (key, value) in &entries {
        object.insert(key_text(key)?, value.clone());
    }
    if object.len() == entries.len() {
        return Ok(Value::Object(object));
    }
    let entry = |(key, value): &(Value, Value)| {
        key_text(key).map(|key| format!("{}:{value}", Value::String(key)))
    };
    let entries: Vec<String> = entries.iter().map(entry).collect::<Result<_, _>>()?;
    let text = format!("{{{}}}", entries.join(","));
    Err(Substitute::text(text, "a map with the same key twice"))
}

fn key_text(key: &Value) -> Result<String, Substitute> {
    match key {
        Value::String(key) => Ok(key.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(key.to_string()),
        _ => Err(Substitute::null("a map with a key that is no text or number")),
    }
}
