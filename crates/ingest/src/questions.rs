//! Tables of questions and answers: the text of a record is both.

use serde_json::{Map, Value};

use crate::options::FieldMap;

/// The fields of a table of questions and answers, in any case. Without a text field they are the
/// text.
const QUESTION_AND_ANSWER: [&str; 2] = ["question", "answer"];

/// The names of question and answer, if the sample has both and no role has them.
pub(crate) fn question_and_answer(
    sample: &Map<String, Value>,
    map: &FieldMap,
) -> Option<(Option<String>, String)> {
    let taken = [map.id.as_ref(), map.title.as_ref()];
    let find = |wanted: &str| {
        let is_it = |name: &&String| {
            name.trim().eq_ignore_ascii_case(wanted) && !taken.iter().flatten().any(|t| t == name)
        };
        sample.keys().find(is_it).cloned()
    };
    let [question, answer] = QUESTION_AND_ANSWER.map(find);
    Some((Some(question?), answer?))
}

/// A question and its answer as one text. A value that is not a string is returned as it is, so
/// that the error names it.
pub(crate) fn with_question(question: Option<Value>, answer: Option<Value>) -> Option<Value> {
    match (question, answer) {
        (Some(Value::String(question)), Some(Value::String(answer))) => {
            let parts = [question.trim(), answer.trim()];
            let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            Some(Value::String(parts.join("\n\n")))
        }
        (Some(question), None | Some(Value::Null)) => Some(question),
        (_, answer) => answer,
    }
}
