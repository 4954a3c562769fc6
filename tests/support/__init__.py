"""What the tests share: real servers on free ports, and installations on them."""
