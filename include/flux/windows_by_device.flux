// In how many windows of a range each device has a row.
//
// params: downsampled (bucket), measurement, start, stop
// yields: one row per device, `_value` the number
from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == "readings")
    |> count()
    |> group()
