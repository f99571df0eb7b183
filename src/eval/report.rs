//! Evaluations as JSON, and the systems that they compare.

use super::{EvalOptions, EvalReport, RerankedSystem, SystemEval};
use crate::search::{RerankOrder, Searcher};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use warpseek_bert::reranker::Reranker;

impl<'a> RerankedSystem<'a> {
    /// The order of the candidates in an index.
    pub(super) fn order(&self, searcher: &Searcher) -> RerankOrder {
        RerankOrder::of(self.retriever_weight, self.reranker, searcher.index.manifest())
    }

    /// Every reranker at every depth. One that is combined with the retrieval score counts twice:
    /// so (with `weight`, or as it is by default), and alone.
    pub fn all(
        rerankers: &'a [(String, Arc<Reranker>)],
        depths: &[usize],
        weight: Option<f32>,
    ) -> Vec<Self> {
        let mut all = Vec::new();
        for (model, reranker) in rerankers {
            // A folder is named by its last part.
            let name = model.rsplit(['/', '\\']).next().unwrap_or(model);
            for &depth in depths {
                let mut add = |name: String, retriever_weight| {
                    let model = model.clone();
                    all.push(RerankedSystem { name, model, reranker, depth, retriever_weight });
                };
                if weight.unwrap_or(reranker.retriever_weight()) > 0.0 {
                    add(format!("{name} alone, top {depth}"), Some(0.0));
                }
                add(format!("{name}, top {depth}"), weight);
            }
        }
        all
    }
}

impl EvalReport {
    /// The report as JSON, as `eval --json` prints it; with the scores of every query if
    /// `per_query`. `sha256` tells that of a reranker's weights, if it is known.
    pub fn to_json(
        &self,
        options: &EvalOptions,
        per_query: bool,
        sha256: &dyn Fn(&str) -> Option<String>,
    ) -> Value {
        let system = |system| system_json(system, options, per_query);
        let systems = self.systems.iter();
        let rerankers = self.rerankers();
        let reranker = |name: &&str| json!({ "name": name, "sha256": sha256(name) });
        let mut value = json!({
            "systems": systems.map(system).collect::<Vec<_>>(),
            "reranker": rerankers.first(),
            "rerankers": rerankers.iter().map(reranker).collect::<Vec<_>>(),
            "judged_queries": self.systems.first().map(|s| s.evaluation.judged),
            "warnings": self.warnings,
        });
        if let (Value::Object(value), Value::Object(counts)) = (&mut value, json!(self.coverage)) {
            value.extend(counts);
        }
        value
    }

    /// Names of the rerankers that ran, each once, the preferred one first.
    pub fn rerankers(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for reranker in self.systems.iter().filter_map(|system| system.reranker.as_ref()) {
            if !names.contains(&reranker.name.as_str()) {
                names.push(&reranker.name);
            }
        }
        names
    }
}

fn system_json(system: &SystemEval, options: &EvalOptions, per_query: bool) -> Value {
    let scores = |values: &[f64]| -> Value {
        let pairs = options.measures.iter().zip(values);
        pairs.map(|(m, v)| (m.to_string(), json!(v))).collect::<Map<_, _>>().into()
    };
    let evaluation = &system.evaluation;
    let mut value = json!({
        "name": system.name,
        "reranker": system.reranker,
        "mean": scores(&evaluation.mean),
        "judged": evaluation.judged,
        "answered": evaluation.answered,
        "without_relevant": evaluation.without_relevant,
        "latency_ms": system.latency,
        "latency_estimated": system.latency_estimated,
    });
    if let Some(test) = &system.against_first {
        value["against_first"] = json!({
            "difference": test.difference,
            "interval_95": [test.interval.0, test.interval.1],
            "wins": test.wins,
            "ties": test.ties,
            "losses": test.losses,
            "p_randomisation": test.randomisation.p_value,
            "p_t_test": test.t_test.as_ref().map(|t| t.p_value),
        });
    }
    if per_query {
        let all = evaluation.per_query.iter();
        value["per_query"] = all.map(|q| (q.query.clone(), scores(&q.values))).collect();
    }
    value
}
