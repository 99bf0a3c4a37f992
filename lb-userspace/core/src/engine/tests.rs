mod founding;
mod history;
mod lab;
mod membership;
mod probing;
mod returning;
mod rules;
mod writing;
