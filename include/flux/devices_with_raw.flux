// The devices that have raw readings in a range.
//
// params: raw (bucket), measurement, start, stop, counted (a field that every reading has)
// yields: one row per device, `_time` the time of its newest reading
from(bucket: params.raw)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == params.counted)
    |> last()
    |> drop(columns: ["_start", "_stop", "_measurement", "_field", "_value"])
    |> group()
