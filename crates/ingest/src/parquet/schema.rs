//! The schema: the columns that are read, and the structure of the values that they make up.

use std::collections::HashSet;

use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::schema::types::{SchemaDescriptor, Type};
use serde_json::Value;

use super::value::{self, ColumnType};

/// A value that shows the names of a field's fields: objects for structs, else null.
pub(super) fn sample(field: &Type) -> Value {
    match Shape::of(field) {
        Shape::Struct if repetition(field) != Repetition::REPEATED => {
            let fields = field.get_fields().iter();
            fields.map(|field| (field.name().to_owned(), sample(field))).collect()
        }
        _ => Value::Null,
    }
}

/// A top-level field with the columns that are read for it.
pub(super) struct TopField {
    pub(super) field: PlannedField,
    /// The number of each column in the file, and its type; in the order of the schema.
    pub(super) columns: Vec<(usize, ColumnType)>,
}

/// A field without the columns that cannot be read.
pub(super) struct PlannedField {
    pub(super) name: String,
    pub(super) repetition: Repetition,
    pub(super) nesting: Nesting,
}

/// Structure of a field's values.
pub(super) enum Nesting {
    Leaf,
    Struct(Vec<PlannedField>),
    /// A list whose repeated field is the element.
    List(Box<PlannedField>),
    /// A list whose repeated field is a group around this element.
    WrappedList(Box<PlannedField>),
    /// A map whose repeated field is a group of this key and value.
    Map(Box<PlannedField>, Box<PlannedField>),
}

/// Decides, before the first row, which columns are read and as what.
pub(super) struct Planner<'a> {
    /// The number of the next column of the schema.
    next_column: usize,
    /// The columns of the present top-level field.
    columns: Vec<(usize, ColumnType)>,
    /// The names of structs' fields down to the present one.
    path: Vec<&'a str>,
    /// Names of fields that are left out, with the reasons.
    left_out: Vec<(String, String)>,
}

impl<'a> Planner<'a> {
    /// Plans to read the top-level fields that are `needed`. `column_type` gets the dotted name of
    /// a column and its number, and returns its type or the reason to leave it out. Returns the
    /// fields, and the names of those that are left out with the reasons.
    pub(super) fn plan(
        schema: &'a SchemaDescriptor,
        needed: impl Fn(&str) -> bool,
        column_type: &dyn Fn(&str, usize) -> Result<ColumnType, String>,
    ) -> (Vec<TopField>, Vec<(String, String)>) {
        let (columns, path, left_out) = (Vec::new(), Vec::new(), Vec::new());
        let mut this = Self { next_column: 0, columns, path, left_out };
        let mut fields: Vec<TopField> = Vec::new();
        let mut names = HashSet::new();
        for field in schema.root_schema().get_fields() {
            if !needed(field.name()) {
                this.pass(field);
                continue;
            }
            let is_known = !names.insert(field.name());
            let field = this.named(field, is_known, column_type);
            let columns = std::mem::take(&mut this.columns);
            fields.extend(field.map(|field| TopField { field, columns }));
        }
        (fields, this.left_out)
    }

    /// A field of a struct, or of a row.
    fn named(
        &mut self,
        field: &'a Type,
        is_known: bool,
        column_type: &dyn Fn(&str, usize) -> Result<ColumnType, String>,
    ) -> Option<PlannedField> {
        self.path.push(field.name());
        let planned = match is_known {
            true => self.leave_out(field, "another field has the same name".into()),
            false => self.field(field, column_type),
        };
        self.path.pop();
        planned
    }

    fn field(
        &mut self,
        field: &'a Type,
        column_type: &dyn Fn(&str, usize) -> Result<ColumnType, String>,
    ) -> Option<PlannedField> {
        let first = self.columns.len();
        let nesting = match Shape::of(field) {
            Shape::Unreadable(reason) => return self.leave_out(field, reason),
            Shape::Leaf => {
                match column_type(&self.path.join("."), self.next_column) {
                    Ok(column_type) => self.columns.push((self.next_column, column_type)),
                    Err(reason) => return self.leave_out(field, reason),
                }
                self.next_column += 1;
                Nesting::Leaf
            }
            Shape::Struct => {
                let (mut fields, mut names) = (Vec::new(), HashSet::new());
                for field in field.get_fields() {
                    let is_known = !names.insert(field.name());
                    fields.extend(self.named(field, is_known, column_type));
                }
                match fields.is_empty() {
                    true => return None,
                    false => Nesting::Struct(fields),
                }
            }
            Shape::List(entry) => Nesting::List(Box::new(self.field(entry, column_type)?)),
            Shape::WrappedList(element) => {
                Nesting::WrappedList(Box::new(self.field(element, column_type)?))
            }
            Shape::Map(entry) => {
                let [key, value] = entry.get_fields() else { return None };
                let key = self.field(key, column_type);
                let value = self.field(value, column_type);
                match key.zip(value) {
                    Some((key, value)) => Nesting::Map(Box::new(key), Box::new(value)),
                    None => {
                        self.columns.truncate(first);
                        return None;
                    }
                }
            }
        };
        let (name, repetition) = (field.name().to_owned(), repetition(field));
        Some(PlannedField { name, repetition, nesting })
    }

    fn leave_out(&mut self, field: &Type, reason: String) -> Option<PlannedField> {
        self.left_out.push((self.path.join("."), reason));
        self.pass(field);
        None
    }

    /// Passes the columns of a field.
    fn pass(&mut self, field: &Type) {
        match field.is_group() {
            true => field.get_fields().iter().for_each(|field| self.pass(field)),
            false => self.next_column += 1,
        }
    }
}

/// Structure of a field's values, as the file declares it.
enum Shape<'a> {
    Leaf,
    Struct,
    List(&'a Type),
    WrappedList(&'a Type),
    Map(&'a Type),
    /// A group that is left out, with the reason.
    Unreadable(String),
}

impl<'a> Shape<'a> {
    /// Recognises lists and maps by the format's rules, those for old writers included
    /// (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists>).
    fn of(field: &'a Type) -> Self {
        use ConvertedType as C;
        if field.is_primitive() {
            return Self::Leaf;
        }
        let info = field.get_basic_info();
        match info.logical_type_ref() {
            None | Some(LogicalType::List | LogicalType::Map) => {}
            Some(LogicalType::Variant(_)) => {
                return Self::Unreadable(value::cast("VARIANT", "JSON"));
            }
            Some(_) => return Self::Unreadable(value::unknown_type()),
        }
        let entry = match field.get_fields() {
            [] => return Self::Unreadable("it is a group without columns".into()),
            [entry] if repetition(entry) == Repetition::REPEATED => entry,
            _ => return Self::Struct,
        };
        let inner = if entry.is_group() { entry.get_fields() } else { &[] };
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
