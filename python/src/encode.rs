//! Python's values as JSON text, strictly, for payloads. Values that can't be represented exactly are refused before
//! anything is sent, and the error names their path, as in `payload.items[3].price`.

use std::fmt::Write as _;

use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    sync::PyOnceLock,
    types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType},
};
use serde_json::value::RawValue;

use crate::errors;

/// Maximum depth that pgqrs accepts.
const DEEPEST: usize = 127;

/// A payload as JSON text.
#[pyfunction]
#[pyo3(signature = (payload, index=0, in_batch=false))]
pub(crate) fn encode(payload: &Bound<'_, PyAny>, index: usize, in_batch: bool) -> PyResult<String> {
    let mut writer = Writer {
        json: String::with_capacity(256),
        path: Vec::new(),
        index,
        in_batch,
    };
    writer.value(payload)?;
    Ok(writer.json)
}

/// A payload in the type that pgqrs accepts.
pub(crate) fn encode_raw(
    payload: &Bound<'_, PyAny>,
    index: usize,
    in_batch: bool,
) -> PyResult<Box<RawValue>> {
    let json = encode(payload, index, in_batch)?;
    RawValue::from_string(json).map_err(|error| PyValueError::new_err(error.to_string()))
}

struct Writer<'py> {
    json: String,
    /// Path from the payload to the value that is being written. Its length is the depth.
    path: Vec<Step<'py>>,
    index: usize,
    in_batch: bool,
}

enum Step<'py> {
    Key(Bound<'py, PyString>),
    Place(usize),
}

impl<'py> Writer<'py> {
    fn value(&mut self, value: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = value.py();
        if value.is_none() {
            self.json.push_str("null");
            Ok(())
        } else if let Ok(value) = value.cast::<PyBool>() {
            let json = if value.is_true() { "true" } else { "false" };
            self.json.push_str(json);
            Ok(())
        } else if let Ok(text) = value.cast_exact::<PyString>() {
            self.text(text)
        } else if value.is_instance(ENUM.import(py, "enum", "Enum")?)? {
            // Before text and numbers, since the members of an enumeration can be those too.
            self.value(&value.getattr(intern!(py, "value"))?)
        } else if let Ok(text) = value.cast::<PyString>() {
            self.text(text)
        } else if let Ok(number) = value.cast::<PyInt>() {
            self.integer(number)
        } else if let Ok(number) = value.cast::<PyFloat>() {
            self.float(number)
        } else if let Ok(dict) = value.cast::<PyDict>() {
            self.dict(dict)
        } else if let Ok(list) = value.cast::<PyList>() {
            self.sequence(py, list.iter())
        } else if let Ok(tuple) = value.cast::<PyTuple>() {
            self.sequence(py, tuple.iter())
        } else if value.is_instance(DECIMAL.import(py, "decimal", "Decimal")?)? {
            self.decimal(value)
        } else if value.is_instance_of::<PyType>() {
            self.refuse(py, &format!("{value} is a class, and not a value of it"))
        } else if let Ok(serializer) = value.getattr(intern!(py, "__pydantic_serializer__")) {
            self.model(value, &serializer)
        } else if value.hasattr(intern!(py, "__dataclass_fields__"))? {
            self.dataclass(value)
        } else if let Some(plain) = plain(value)? {
            // A container may contain itself, by way of another value of this type.
            self.enter(py)?;
            self.value(&plain)
        } else {
            let of = value.get_type().qualname()?;
            self.refuse(
                py,
                &format!("a value of type `{of}` can't be represented in JSON"),
            )
        }
    }

    fn text(&mut self, text: &Bound<'py, PyString>) -> PyResult<()> {
        let Ok(unicode) = text.to_cow() else {
            return self.refuse(
                text.py(),
                "text with half of a surrogate pair is not Unicode",
            );
        };
        // serde_json escapes it.
        self.write(text.py(), serde_json::to_string(&*unicode))
    }

    fn integer(&mut self, number: &Bound<'py, PyInt>) -> PyResult<()> {
        let py = number.py();
        if let Ok(number) = number.extract::<i64>() {
            let _ = write!(self.json, "{number}");
            return Ok(());
        }
        // As formatted by `int`, whatever a subclass overrides.
        let digits = py
            .get_type::<PyInt>()
            .call_method1(intern!(py, "__repr__"), (number,));
        match digits {
            Ok(digits) => self.json.push_str(&digits.cast::<PyString>()?.to_cow()?),
            // Python writes no integers of more than 4,300 digits by default.
            Err(error) => return self.refuse(py, &error.value(py).to_string()),
        }
        Ok(())
    }

    fn float(&mut self, number: &Bound<'py, PyFloat>) -> PyResult<()> {
        let value = number.value();
        if !value.is_finite() {
            return self.refuse(
                number.py(),
                &format!("{} is not a number in JSON", number.str()?),
            );
        }
        self.write(number.py(), serde_json::to_string(&value))
    }

    fn decimal(&mut self, number: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = number.py();
        let finite = number.call_method0(intern!(py, "is_finite"))?;
        if !finite.is_truthy()? {
            return self.refuse(py, &format!("{} is not a number in JSON", number.str()?));
        }
        // All of its digits and its exponent, in the same notation as JSON.
        let decimal = DECIMAL.import(py, "decimal", "Decimal")?;
        let digits = decimal.call_method1(intern!(py, "__str__"), (number,))?;
        self.json.push_str(&digits.cast::<PyString>()?.to_cow()?);
        Ok(())
    }

    fn dict(&mut self, dict: &Bound<'py, PyDict>) -> PyResult<()> {
        self.enter(dict.py())?;
        self.json.push('{');
        for (place, (key, value)) in dict.iter().enumerate() {
            let Ok(name) = key.cast::<PyString>() else {
                let key = key.repr()?;
                return self.refuse(dict.py(), &format!("the key {key} is not text"));
            };
            self.field(place, name, &value)?;
        }
        self.json.push('}');
        Ok(())
    }

    fn dataclass(&mut self, value: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = value.py();
        self.enter(py)?;
        self.json.push('{');
        let fields = FIELDS
            .import(py, "dataclasses", "fields")?
            .call1((value,))?;
        for (place, field) in fields.try_iter()?.enumerate() {
            let name = field?.getattr(intern!(py, "name"))?;
            let name = name.cast::<PyString>()?;
            self.field(place, name, &value.getattr(name)?)?;
        }
        self.json.push('}');
        Ok(())
    }

    /// A pydantic model: by aliases, since that is how it is read again.
    fn model(&mut self, model: &Bound<'py, PyAny>, serializer: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = model.py();
        let how = PyDict::new(py);
        how.set_item("mode", "json")?;
        how.set_item("by_alias", true)?;
        match serializer.call_method(intern!(py, "to_python"), (model,), Some(&how)) {
            // Its floats may still be invalid in JSON.
            Ok(plain) => self.value(&plain),
            Err(error) => self.refuse(py, &error.value(py).to_string()),
        }
    }

    fn field(
        &mut self,
        place: usize,
        name: &Bound<'py, PyString>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        if place > 0 {
            self.json.push(',');
        }
        self.text(name)?;
        self.json.push(':');
        self.path.push(Step::Key(name.clone()));
        self.value(value)?;
        self.path.pop();
        Ok(())
    }

    fn sequence(
        &mut self,
        py: Python<'py>,
        items: impl Iterator<Item = Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        self.enter(py)?;
        self.json.push('[');
        for (place, item) in items.enumerate() {
            if place > 0 {
                self.json.push(',');
            }
            self.path.push(Step::Place(place));
            self.value(&item)?;
            self.path.pop();
        }
        self.json.push(']');
        Ok(())
    }

    fn write(&mut self, py: Python<'py>, json: serde_json::Result<String>) -> PyResult<()> {
        match json {
            Ok(json) => self.json.push_str(&json),
            Err(error) => return self.refuse(py, &error.to_string()),
        }
        Ok(())
    }

    /// Also stops at a container that contains itself.
    fn enter(&self, py: Python<'py>) -> PyResult<()> {
        if self.path.len() >= DEEPEST {
            Err(errors::too_deep(py, self.index, DEEPEST))
        } else {
            Ok(())
        }
    }

    fn refuse(&self, py: Python<'py>, reason: &str) -> PyResult<()> {
        let mut path = if self.in_batch {
            format!("payloads[{}]", self.index)
        } else {
            "payload".to_owned()
        };
        for step in &self.path {
            let _ = match step {
                Step::Place(place) => write!(path, "[{place}]"),
                Step::Key(key) => {
                    let key = key.to_string_lossy();
                    let is_name = key
                        .chars()
                        .all(|letter| letter.is_alphanumeric() || letter == '_')
                        && !key.starts_with(|letter: char| letter.is_numeric())
                        && !key.is_empty();
                    if is_name {
                        write!(path, ".{key}")
                    } else {
                        write!(path, "[{key:?}]")
                    }
                }
            };
        }
        Err(errors::not_json(py, self.index, &path, reason))
    }
}

/// What stands for a value of another type in JSON, such as a time: Python knows.
fn plain<'py>(value: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = value.py();
    let plain = PLAIN
        .import(py, "pgqrs._encoding", "plain")?
        .call1((value,))?;
    let is_known = !plain.is(py.NotImplemented());
    Ok(is_known.then_some(plain))
}

/// From Python's own library, looked up once.
static ENUM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static DECIMAL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static FIELDS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static PLAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// A batch in the type that pgqrs accepts.
pub(crate) fn encode_all(payloads: &Bound<'_, PyList>) -> PyResult<Vec<Box<RawValue>>> {
    payloads
        .iter()
        .enumerate()
        .map(|(index, payload)| encode_raw(&payload, index, true))
        .collect()
}
