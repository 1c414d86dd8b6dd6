"""Stream processors: one module each, plain functions and classes that know no Kafka."""
