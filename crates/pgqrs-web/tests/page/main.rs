//! The page: what it answers, and what a real Chromium makes of it.

mod actions;
mod attacks;
mod bulk;
mod http;
mod operators;
mod outages;
mod support;
mod views;
