// The last value of a field of every device in a range.
//
// params: downsampled (bucket), measurement, field, start, stop
// yields: one row per device with a value, `_time` the window's start
from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == params.field)
    |> last()
    |> drop(columns: ["_start", "_stop", "_measurement", "_field"])
    |> group()
