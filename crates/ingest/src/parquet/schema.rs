//! The schema, by which the columns of a row become JSON values.

use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};

use super::columns::{LeafColumn, Levels};

/// A value that shows the names of a field's fields: objects for structs, else null.
pub(super) fn sample(field: &Type) -> Value {
    match Nesting::of(field) {
        Nesting::Struct if repetition(field) != Repetition::REPEATED => {
            let fields = field.get_fields().iter();
            fields.map(|field| (field.name().to_owned(), sample(field))).collect()
        }
        _ => Value::Null,
    }
}

/// The name of a group without columns, if there is one.
pub(super) fn empty_group(field: &Type) -> Option<&str> {
    match field.is_group().then(|| field.get_fields()) {
        Some([]) => Some(field.name()),
        Some(fields) => fields.iter().find_map(|field| empty_group(field)),
        None => None,
    }
}

/// Assembles the current row of a row group.
pub(super) struct RowAssembler<'a> {
    /// The columns of the fields that are read, in the order of the schema.
    columns: &'a mut [LeafColumn],
    /// The column that comes next in the schema.
    next: usize,
    /// The names down to the present field; after an error to the field in question.
    pub(super) path: Vec<&'a str>,
}

impl<'a> RowAssembler<'a> {
    pub(super) fn new(columns: &'a mut [LeafColumn]) -> Self {
        Self { columns, next: 0, path: Vec::new() }
    }

    /// The values of a struct's fields, or the reason that one has none.
    ///
    /// `levels` are those of the struct's values: zero for a row, one more definition level inside
    /// each optional field, one more of both inside each repeated field.
    pub(super) fn object(
        &mut self,
        fields: &'a [TypePtr],
        levels: Levels,
    ) -> Result<Map<String, Value>, String> {
        let mut object = Map::with_capacity(fields.len());
        for field in fields {
            self.path.push(field.name());
            object.insert(field.name().to_owned(), self.field(field, levels)?);
            self.path.pop();
        }
        Ok(object)
    }

    /// The value of a field. `levels` are those of the struct around it.
    fn field(&mut self, field: &'a Type, levels: Levels) -> Result<Value, String> {
        let (rep, def) = levels;
        match repetition(field) {
            Repetition::REQUIRED => self.value(field, levels),
            Repetition::OPTIONAL if self.levels().is_some_and(|next| next.1 <= def) => {
                self.skip(field);
                Ok(Value::Null)
            }
            Repetition::OPTIONAL => self.value(field, (rep, def + 1)),
            Repetition::REPEATED => {
                let levels = (rep + 1, def + 1);
                self.list(field, levels, |this| this.value(field, levels))
            }
        }
    }

    /// The value of a field that is there. `levels` are its own.
    fn value(&mut self, field: &'a Type, levels: Levels) -> Result<Value, String> {
        let inner = (levels.0 + 1, levels.1 + 1);
        match Nesting::of(field) {
            Nesting::Leaf => {
                self.next += 1;
                self.columns.get_mut(self.next - 1).ok_or("the column is missing")?.take()
            }
            Nesting::Struct => self.object(field.get_fields(), levels).map(Value::Object),
            Nesting::List(entry) => self.list(entry, inner, |this| this.value(entry, inner)),
            Nesting::WrappedList(element) => {
                self.list(element, inner, |this| this.field(element, inner))
            }
            Nesting::Map(entry) => {
                let mut object = Map::new();
                self.each(entry, inner, |this| {
                    let pair = this.object(entry.get_fields(), inner)?;
                    let mut pair = pair.into_iter().map(|(_, value)| value);
                    let key = match pair.next() {
                        Some(Value::String(key)) => key,
                        Some(Value::Number(key)) => key.to_string(),
                        _ => return Err("the keys of a map must be strings".into()),
                    };
                    match object.insert(key, pair.next().unwrap_or_default()) {
                        Some(_) => Err("a key of the map appears twice".into()),
                        None => Ok(()),
                    }
                })?;
                Ok(Value::Object(object))
            }
        }
    }

    fn list(
        &mut self,
        entry: &Type,
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

    /// Calls `read` for each entry of a repeated field. `levels` are those of the entries.
    fn each(
        &mut self,
        entry: &Type,
        levels: Levels,
        mut read: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        if self.levels().is_some_and(|next| next.1 < levels.1) {
            self.skip(entry);
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
    fn skip(&mut self, field: &Type) {
        if field.is_group() {
            field.get_fields().iter().for_each(|field| self.skip(field));
        } else {
            self.columns.get_mut(self.next).into_iter().for_each(LeafColumn::skip);
            self.next += 1;
        }
    }
}

/// Structure of a field's values.
enum Nesting<'a> {
    Leaf,
    Struct,
    /// A list whose repeated field is the element.
    List(&'a Type),
    /// A list whose repeated field is a group around this element.
    WrappedList(&'a Type),
    /// A map whose repeated field is this group of key and value.
    Map(&'a Type),
}

impl<'a> Nesting<'a> {
    /// Recognises lists and maps by the format's rules, those for old writers included
    /// (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists>).
    fn of(field: &'a Type) -> Self {
        use ConvertedType as C;
        if field.is_primitive() {
            return Self::Leaf;
        }
        let entry = match field.get_fields() {
            [entry] if repetition(entry) == Repetition::REPEATED => entry,
            _ => return Self::Struct,
        };
        let inner = if entry.is_group() { entry.get_fields() } else { &[] };
        let info = field.get_basic_info();
        match (info.logical_type_ref(), info.converted_type(), inner) {
            (Some(LogicalType::List), _, [element]) | (None, C::LIST, [element])
                if repetition(element) != Repetition::REPEATED
                    && entry.name() != "array"
                    && entry.name() != format!("{}_tuple", field.name()) =>
            {
                Self::WrappedList(element)
            }
            (Some(LogicalType::List), ..) | (None, C::LIST, _) => Self::List(entry),
            // A map without values is a list of its keys.
            (Some(LogicalType::Map), _, [element])
            | (None, C::MAP | C::MAP_KEY_VALUE, [element]) => Self::WrappedList(element),
            (Some(LogicalType::Map), _, [_, _]) | (None, C::MAP | C::MAP_KEY_VALUE, [_, _]) => {
                Self::Map(entry)
            }
            _ => Self::Struct,
        }
    }
}

fn repetition(field: &Type) -> Repetition {
    let info = field.get_basic_info();
    match info.has_repetition() {
        true => info.repetition(),
        false => Repetition::REQUIRED,
    }
}
