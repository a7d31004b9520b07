# verify_dkim.pl RECORDS MESSAGE...: what Mail::DKIM says of each DKIM signature, a line of 1 and 0 for each message.
# RECORDS is a JSON object of DNS names (without the last dot) and texts of TXT records.
use strict;
use warnings;
use JSON::PP;
use Mail::DKIM::Verifier;

my $path = shift;
open(my $in, '<', $path) or die "$path: $!";
my $records = decode_json(join('', <$in>));

package Answer { sub new { my ($class, $text) = @_; bless { text => $text }, $class }
    sub type { 'TXT' } sub char_str_list { ($_[0]{text}) } sub txtdata { $_[0]{text} } }

{
    no warnings 'redefine';
    *Mail::DKIM::DNS::query = sub {
        my ($name) = @_;
        my $text = $records->{$name =~ s/\.$//r};
        $@ = '';
        return defined $text ? (Answer->new($text)) : ();
    };
}

for my $file (@ARGV) {
    my $verifier = Mail::DKIM::Verifier->new();
    open(my $message, '<:raw', $file) or die "$file: $!";
    local $/;
    $verifier->PRINT(<$message>);
    $verifier->CLOSE;
    my $line = '';
    for my $signature ($verifier->signatures) {
        my $good = $signature->result eq 'pass';
        warn "$file: " . $signature->result_detail . "\n" unless $good;
        $line .= $good ? '1' : '0';
    }
    print "$line\n";
}
