//! Reading of rows: their texts, ids and vectors, from one shard or several.

use super::index::Index;
use super::reader::{RowName, Shard};
use super::row::{Row, RowNames, split_row_id};
use crate::error::{Error, Result};
use half::f16;
use std::collections::BTreeMap;
use warpseek_topk::stride_of;

impl Index {
    /// The rows with these numbers and their texts, in the given order.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a row has no chunk in the database, or a document differs from its
    /// hash.
    pub fn rows(&self, numbers: &[u32]) -> Result<Vec<Row>> {
        let rows = match &self.remote {
            Some(remote) => self.read_by_shard(numbers, |requests| remote.rows(requests))?,
            None => self.by_shard(numbers, Shard::rows)?,
        };
        Ok(rows.into_iter().zip(numbers).map(|(row, &number)| Row { row: number, ..row }).collect())
    }

    /// The `doc_id`s of rows, in the given order.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn doc_ids(&self, numbers: &[u32]) -> Result<Vec<String>> {
        if let Some(remote) = &self.remote {
            let names = self.read_by_shard(numbers, |requests| remote.names(requests))?;
            return Ok(names.into_iter().map(|(_, doc_id)| doc_id).collect());
        }
        self.by_shard(numbers, Shard::doc_ids)
    }

    /// The id and `doc_id` of rows, in the given order.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn names(&self, numbers: &[u32]) -> Result<Vec<(String, String)>> {
        match &self.remote {
            Some(remote) => self.read_by_shard(numbers, |requests| remote.names(requests)),
            None => self.by_shard(numbers, Shard::names),
        }
    }

    /// The vectors of rows, `[numbers.len(), dim]`, after comparing them with their checksums.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if one is damaged, [`Error::Usage`] past the end.
    pub fn vectors(&self, numbers: &[u32]) -> Result<Vec<Vec<f32>>> {
        let (dim, stride) = (self.manifest.dim, stride_of(self.manifest.dim));
        let values = |row: &[f16]| row.iter().take(dim).map(|v| v.to_f32()).collect();
        let Some(remote) = &self.remote else {
            let matrix = self.matrix()?;
            let row = |&number: &u32| matrix.checked_row(number as usize).map(values);
            return numbers.iter().map(row).collect();
        };
        self.read_by_shard(numbers, |requests| {
            let shards = remote.vectors(requests)?;
            Ok(shards.iter().map(|rows| rows.chunks_exact(stride).map(values).collect()).collect())
        })
    }

    /// The ids of all rows, deleted ones included.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn row_names(&self) -> Result<RowNames> {
        self.check_local("read all ids")?;
        let mut names = RowNames::default();
        self.shards.iter().try_for_each(|shard| shard.append_row_names(&mut names))?;
        Ok(names)
    }

    /// The results of `read`, which takes rows of one shard, in the order of `numbers`.
    fn by_shard<T>(
        &self,
        numbers: &[u32],
        read: impl Fn(&Shard, &[u32]) -> Result<Vec<T>>,
    ) -> Result<Vec<T>> {
        if let [shard] = &self.shards[..] {
            return read(shard, numbers);
        }
        self.read_by_shard(numbers, |requests| {
            requests.iter().map(|(shard, rows)| read(&self.shards[*shard], rows)).collect()
        })
    }

    /// The results of `read`, which takes rows of several shards, in the order of `numbers`.
    pub(crate) fn read_by_shard<T>(
        &self,
        numbers: &[u32],
        read: impl FnOnce(&[(usize, Vec<u32>)]) -> Result<Vec<Vec<T>>>,
    ) -> Result<Vec<T>> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, &number) in numbers.iter().enumerate() {
            let shard = self.first_rows.partition_point(|&first| first <= number as usize) - 1;
            places.entry(shard).or_default().push(place);
        }
        let local = |(&shard, places): (&usize, &Vec<usize>)| {
            let first = self.first_rows[shard] as u32;
            (shard, places.iter().map(|&place| numbers[place] - first).collect())
        };
        let requests: Vec<(usize, Vec<u32>)> = places.iter().map(local).collect();
        if requests.iter().any(|(shard, _)| *shard + 1 >= self.first_rows.len()) {
            let n = self.n_rows();
            return Err(Error::usage(format!("a row is not there: the index has {n} rows")));
        }
        let results = read(&requests)?;
        let is_whole =
            |(result, (_, rows)): (&Vec<T>, &(usize, Vec<u32>))| result.len() == rows.len();
        if results.len() != requests.len() || !results.iter().zip(&requests).all(is_whole) {
            return Err(Error::usage("a shard sent other rows than were asked for"));
        }
        let mut found: Vec<(usize, T)> =
            places.into_values().flatten().zip(results.into_iter().flatten()).collect();
        found.sort_by_key(|(place, _)| *place);
        Ok(found.into_iter().map(|(_, value)| value).collect())
    }

    /// The live rows of an id, in order: those of the document with this id; else the one row of
    /// this id; else those of the documents with this `doc_id`. None if the index has no such id.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn rows_of(&self, id: &str) -> Result<Vec<u32>> {
        let rows = self.rows_named(RowName::Id, id)?;
        if !rows.is_empty() {
            return Ok(rows);
        }
        if let Some((document, ordinal)) = split_row_id(id)
            && let rows = self.rows_named(RowName::Id, document)?
            && (rows.len() > 1 || split_row_id(document).is_some())
            && let Some(&row) = rows.get(ordinal as usize)
        {
            return Ok(vec![row]);
        }
        self.rows_named(RowName::DocId, id)
    }

    fn rows_named(&self, name: RowName, id: &str) -> Result<Vec<u32>> {
        self.check_local("find rows by their ids")?;
        let mut rows = Vec::new();
        for (shard, &first) in self.shards.iter().zip(&self.first_rows) {
            rows.extend(shard.rows_named(name, id)?.into_iter().map(|row| row + first as u32));
        }
        Ok(rows)
    }
}
