//! Loading the library, and its cheapest call.

use oauth_mail_tests::{Error, Result};

use crate::{
    report::{Report, Target},
    run::{Run, median, run},
    world::{MANY, World},
};

const LOADS: usize = 20;
const CALLS: &str = "200000";

pub fn measure(world: &World, report: &mut Report) -> Result<()> {
    println!("\nThe loaded library");
    let mut loads = Vec::new();
    for _ in 0..LOADS {
        let folder = world.folder("load")?;
        loads.push(seconds(&run("bench-host", &folder, world.program("bench-host").arg("load"))?)?);
    }
    let load_ms = median(loads) * 1e3;
    let folder = world.folder("call")?;
    let settings = world.settings(&folder, &world.incoming(MANY, None))?;
    let called = run("bench-host", &folder, world.program("bench-host").arg("call").arg(settings).arg(CALLS))?;
    let call_us = seconds(&called)? * 1e6;
    println!("  loaded in {load_ms:.2} ms, one empty settle_batch in {call_us:.2} µs");
    report.add("load of the library, ms", load_ms, None, None, Some(Target::AtMost(20.0)));
    report.add("one hook call, µs", call_us, None, None, Some(Target::AtMost(2.0)));
    Ok(())
}

fn seconds(run: &Run) -> Result<f64> {
    run.answer["seconds"].as_f64().ok_or_else(|| Error::new(format!("no figure: {}", run.answer)))
}
