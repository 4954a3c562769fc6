// How many values of a field lie outside its plausible range.
//
// params: raw (bucket), measurement, start, stop, field, low, high
// yields: one row a device that has any, `_value` the number
from(bucket: params.raw)
    |> range(start: params.start, stop: params.stop)
    |> filter(fn: (r) => r._measurement == params.measurement and r._field == params.field)
    |> filter(fn: (r) => r._value < params.low or r._value > params.high)
    |> count()
    |> group()
