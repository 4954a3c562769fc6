// The newest raw reading of a range.
//
// params: raw (bucket), measurement, start, stop, counted (a field that every reading has)
// yields: one row, `_time` its time; none if there are no readings
from(bucket: params.raw)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == params.counted)
    |> last()
    |> group()
    |> sort(columns: ["_time"], desc: true)
    |> limit(n: 1)
