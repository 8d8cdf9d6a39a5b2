"""The pages and gauges that we add to Flower, and how it starts safely."""
