//! What a model is to everyone else: a signature and a function from tensors to tensors.

use crate::{Datatype, Error, Result, Tensor};

/// The name, datatype and shape of one input or output.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TensorSpec {
    /// The name by which requests and results refer to it.
    pub name: String,
    /// The type of its elements.
    pub datatype: Datatype,
    /// The length of each dimension; -1 if it varies from call to call.
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Names an input or output; a length of -1 varies.
    pub fn new(name: impl Into<String>, datatype: Datatype, shape: impl Into<Vec<i64>>) -> Self {
        Self { name: name.into(), datatype, shape: shape.into() }
    }

    /// Fails with `InvalidTensor` unless the tensor has this datatype and a shape that fits.
    pub fn check(&self, tensor: &Tensor) -> Result<()> {
        if tensor.datatype() != self.datatype {
            let (name, actual, expected) = (&self.name, tensor.datatype(), self.datatype);
            return Err(Error::invalid(format!(
                "{name:?} has datatype {actual}, expected {expected}"
            )));
        }
        if !self.fits(tensor.shape()) {
            let (name, actual, expected) = (&self.name, tensor.shape(), &self.shape);
            return Err(Error::invalid(format!(
                "{name:?} has shape {actual:?}, expected {expected:?}"
            )));
        }
        Ok(())
    }

    fn fits(&self, shape: &[usize]) -> bool {
        let fits_length =
            |(spec, actual): (&i64, &usize)| *spec == -1 || usize::try_from(*spec) == Ok(*actual);
        self.shape.len() == shape.len() && self.shape.iter().zip(shape).all(fits_length)
    }
}

/// What a model takes and what it gives.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Signature {
    /// The inputs, all of which a request must carry.
    pub inputs: Vec<TensorSpec>,
    /// The outputs, all of which a result carries.
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Fails with `InvalidTensor` unless the batch holds exactly the inputs, each with datatype and shape as specified.
    pub fn check_inputs(&self, batch: &Batch) -> Result<()> {
        check("input", &self.inputs, batch)
    }

    /// Fails with `InvalidTensor` unless the batch holds exactly the outputs, each with datatype and shape as specified.
    pub fn check_outputs(&self, batch: &Batch) -> Result<()> {
        check("output", &self.outputs, batch)
    }
}

fn check(role: &str, specs: &[TensorSpec], batch: &Batch) -> Result<()> {
    for spec in specs {
        let tensor = batch
            .get(&spec.name)
            .ok_or_else(|| Error::invalid(format!("{role} {:?} is missing", spec.name)))?;
        spec.check(tensor)?;
    }
    // Every specified name is there and no name comes twice, so a longer batch holds a name that is not specified.
    match batch
        .iter()
        .find(|(name, _)| batch.len() > specs.len() && specs.iter().all(|spec| spec.name != *name))
    {
        Some((name, _)) => Err(Error::invalid(format!(
            "{name:?} is no {role} of this model, expected {}",
            names(specs)
        ))),
        None => Ok(()),
    }
}

fn names(specs: &[TensorSpec]) -> String {
    specs.iter().map(|spec| spec.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Named tensors: what goes into a model or comes out of it. No name comes twice.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    tensors: Vec<(String, Tensor)>,
}

impl Batch {
    /// Takes tensors with their names; fails with `InvalidTensor` if a name comes twice.
    pub fn new(tensors: Vec<(String, Tensor)>) -> Result<Self> {
        for (index, (name, _)) in tensors.iter().enumerate() {
            if tensors[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Error::invalid(format!("{name:?} comes twice")));
            }
        }
        Ok(Self { tensors })
    }

    /// A batch of one tensor.
    pub fn single(name: impl Into<String>, tensor: Tensor) -> Self {
        Self { tensors: vec![(name.into(), tensor)] }
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.iter().find_map(|(other, tensor)| (other == name).then_some(tensor))
    }

    /// The tensors with their names, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// How many rows its tensors have.
    ///
    /// Fails with `InvalidTensor` if they do not all have the same number.
    pub fn rows(&self) -> Result<usize> {
        let rows = self.tensors.first().map_or(0, |(_, tensor)| tensor.rows());
        match self.iter().find(|(_, tensor)| tensor.rows() != rows) {
            Some((name, tensor)) => {
                Err(Error::invalid(format!("{name:?} has {} rows, expected {rows}", tensor.rows())))
            }
            None => Ok(rows),
        }
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensors with their names.
    pub fn into_tensors(self) -> Vec<(String, Tensor)> {
        self.tensors
    }
}

/// A model that is loaded and ready.
///
/// Calls are synchronous and may take long, so they belong on a thread of their own, never on an async runtime.
pub trait Model: Send {
    /// What the model takes and gives; it never changes.
    fn signature(&self) -> &Signature;

    /// Computes the outputs for `inputs`, whose tensors all have the same number of rows.
    ///
    /// The outputs have as many rows, in the same order, and a row's result does not depend on the rows beside it beyond float rounding.
    /// Fails with `InvalidTensor` if the inputs do not fit the signature and with `RuntimeFailed` if the runtime does; the model stays usable after either.
    fn predict(&mut self, inputs: &Batch) -> Result<Batch>;
}
