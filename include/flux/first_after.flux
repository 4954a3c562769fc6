// The first value of one field of every device from some moment on.
//
// params: downsampled (bucket), measurement, field, start, stop
// yields: one row a device that has any, `_time` the window's start
from(bucket: params.downsampled)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == params.field)
    |> first()
    |> drop(columns: ["_start", "_stop", "_measurement", "_field"])
    |> group()
