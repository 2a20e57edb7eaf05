//! The part of the Python package that is written in Rust: pgqrs's public API as Python classes, for `python/pgqrs/`,
//! which builds the Python API on them. Nothing in here is public: names, defaults and argument checks are in Python.

mod admin;
mod answer;
mod consumer;
mod encode;
mod engine;
mod errors;
mod group_admin;
mod health;
mod log;
mod measure;
mod process;
mod producer;
mod rows;
mod schedule;
mod statement;
mod store;

use pyo3::prelude::*;

#[pymodule(name = "_pgqrs", gil_used = true)]
fn extension(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<store::Store>()?;
    module.add_class::<producer::Producer>()?;
    module.add_class::<consumer::Consumer>()?;
    module.add_class::<consumer::Chunk>()?;
    module.add_class::<consumer::Delivery>()?;
    module.add_class::<admin::Admin>()?;
    module.add_class::<group_admin::GroupAdmin>()?;
    module.add_class::<health::Observer>()?;
    module.add_class::<schedule::Schedule>()?;
    module.add_class::<schedule::Scheduler>()?;
    module.add_class::<statement::Statement>()?;
    module.add_class::<consumer::AckStatement>()?;
    module.add_class::<log::Log>()?;
    module.add_class::<measure::Measurements>()?;
    // Until the application has a meter.
    pgqrs::measure(None);
    let end = wrap_pyfunction!(engine::end, module)?;
    module
        .py()
        .import("atexit")?
        .call_method1("register", (end,))?;
    module.add_function(wrap_pyfunction!(store::connect, module)?)?;
    module.add_function(wrap_pyfunction!(statement::statement, module)?)?;
    module.add_function(wrap_pyfunction!(statement::check_queue_name, module)?)?;
    module.add_function(wrap_pyfunction!(statement::test_statement, module)?)?;
    module.add_function(wrap_pyfunction!(encode::encode, module)?)?;
    Ok(())
}
